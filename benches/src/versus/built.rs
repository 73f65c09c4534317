//! Binaries of this repository that take part beside `milena`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

/// The binary of this build with that name, built first where it is not up to date. It goes where
/// `milena` is.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let folder = tests::binary().parent().context("the build's folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--workspace", "--bin", name])
        .args(["--profile", profile, "--target-dir"])
        .arg(folder.parent().context("the target folder")?)
        .current_dir(tests::repository())
        .status()
        .context("cargo runs")?;
    ensure!(status.success(), "cargo build of {name} failed: {status}");
    Ok(folder.join(name))
}
