//! Loops that do no more than a broker must: the arms `bare`. Each says what it leaves out.
//!
//! CPU is the serving thread's alone; the other end of the socket is a thread of this process.

pub mod file_to_socket;
pub mod group_commit;
pub mod ping_pong;
pub mod socket_to_file;

use std::net::{TcpListener, TcpStream};

use super::scenario::Figures;

/// What moving bytes has cost.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// How many.
    pub bytes: u64,
    /// By the clock.
    pub seconds: f64,
    /// Of the thread that serves.
    pub cpu_seconds: f64,
}

impl Moved {
    /// MB in a second.
    pub fn mb_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    /// CPU seconds for each GB.
    pub fn cpu_per_gb(&self) -> f64 {
        self.cpu_seconds / (self.bytes as f64 / 1e9)
    }

    /// As scenarios name them.
    pub fn figures(&self) -> Figures {
        Figures::from([
            ("MB/s", self.mb_per_second()),
            ("CPU-s/GB", self.cpu_per_gb()),
        ])
    }
}

/// Tries each setting once and remembers the cheapest one.
#[derive(Debug)]
pub struct Cheapest<T>(Option<T>);

impl<T> Default for Cheapest<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy> Cheapest<T> {
    /// Runs with the cheapest setting; the first time, with all of them.
    pub fn run(
        &mut self,
        settings: &[T],
        mut run: impl FnMut(T) -> anyhow::Result<Moved>,
    ) -> anyhow::Result<Moved> {
        if let Some(setting) = self.0 {
            return run(setting);
        }
        let mut cheapest: Option<(T, Moved)> = None;
        for &setting in settings {
            let moved = run(setting)?;
            if cheapest.is_none_or(|(_, least)| moved.cpu_per_gb() < least.cpu_per_gb()) {
                cheapest = Some((setting, moved));
            }
        }
        let (setting, moved) = cheapest.ok_or_else(|| anyhow::anyhow!("no settings"))?;
        self.0 = Some(setting);
        Ok(moved)
    }
}

/// The two ends of a connection over loopback.
fn connection() -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok((client, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_setting_is_kept() {
        let mut cheapest = Cheapest::default();
        let mut tried = Vec::new();
        let mut run = |cpu: u32| {
            cheapest.run(&[3, cpu, 2], |setting| {
                tried.push(setting);
                Ok(Moved {
                    bytes: 1,
                    seconds: 1.0,
                    cpu_seconds: f64::from(setting),
                })
            })
        };
        assert_eq!(run(1).unwrap().cpu_seconds, 1.0);
        assert_eq!(run(1).unwrap().cpu_seconds, 1.0);
        assert_eq!(tried, [3, 1, 2, 1]);
    }
}
