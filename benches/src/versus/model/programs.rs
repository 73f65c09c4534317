//! The programs of the arms that score outside of the broker, made ready once in a run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, anyhow, ensure};

use crate::versus::built;

/// The binary `external_scorer` of this build, built first where it is not up to date.
pub fn external() -> anyhow::Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY
        .get_or_init(|| built::binary("external_scorer").map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("{error}"))
}

/// A program of `benches/versus/python`, with its packages, which pip brings the first time.
pub fn python(program: &str) -> anyhow::Result<Command> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let folder = tests::repository().join("benches/versus/python");
    let built = BUILT.get_or_init(|| build_python(&folder).map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!("{error}"))?;
    let mut command = Command::new(folder.join(".venv/bin/python"));
    command.arg(folder.join(program));
    Ok(command)
}

fn build_python(folder: &Path) -> anyhow::Result<()> {
    let output = Command::new(folder.join("build"))
        .stdin(Stdio::null())
        .output()
        .context("benches/versus/python/build does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    ensure!(
        status.success(),
        "benches/versus/python/build failed: {status}\n{said}"
    );
    Ok(())
}
