//! The machine of a run, in words.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// What figures depend on. What can't be found out is "unknown".
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory: u64,
    /// Linux's version.
    pub kernel: String,
    /// Of the brokers' data: its type and device.
    pub file_system: String,
}

impl Machine {
    /// This one, with the file system of `folder`.
    pub fn this(folder: &Path) -> Self {
        let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = field(&info, "MemTotal").and_then(|value| {
            let kib = value.split_whitespace().next()?.parse::<u64>().ok()?;
            Some(kib * 1024)
        });
        Self {
            cpu: cpu().unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            memory: total.unwrap_or(0),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |release| release.trim().to_owned()),
            file_system: file_system(folder).unwrap_or_else(unknown),
        }
    }
}

fn cpu() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = field(&info, "model name").or_else(|| field(&info, "Model"))?;
    match (field(&info, "cpu family"), field(&info, "model")) {
        (Some(family), Some(number)) => Some(format!("{model} (family {family}, model {number})")),
        _ => Some(model),
    }
}

/// The first value of that name in lines of `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

fn file_system(folder: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let folder = folder.canonicalize().ok()?;
    let of = |line: &str| {
        let mut fields = line.split(' ').map(str::to_owned);
        Some((fields.next()?, fields.next()?, fields.next()?))
    };
    let mounts = mounts.lines().filter_map(of);
    let covering = mounts.filter(|(_, point, _)| folder.starts_with(point));
    let (device, point, kind) = covering.max_by_key(|(_, point, _)| point.len())?;
    Some(format!("{kind} on {device} at {point}"))
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The first line that a command prints, on either stream.
pub fn first_line(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        return unknown();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().map_or_else(unknown, str::to_owned)
}

/// The date and time, in UTC.
pub fn date() -> String {
    first_line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))
}

/// Writes back all that waits for it, of all files.
pub fn sync() {
    // SAFETY: sync(2) has no memory effects.
    unsafe { libc::sync() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let info = "model\t\t: 17\nmodel name\t: AMD EPYC\nmodel name\t: another\n";
        assert_eq!(field(info, "model name").as_deref(), Some("AMD EPYC"));
        assert_eq!(field(info, "model").as_deref(), Some("17"));
        assert_eq!(field(info, "name"), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(Machine::this(Path::new("/")).memory > 1 << 20);
    }
}
