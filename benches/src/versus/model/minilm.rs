//! MiniLM's folder, with what each engine wants of it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::programs;

/// The model's folder. The weights are fetched the first time.
pub fn fetched() -> anyhow::Result<PathBuf> {
    let output = Command::new(tests::repository().join("tests/minilm/fetch"))
        .stdin(Stdio::null())
        .output()
        .context("tests/minilm/fetch does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "tests/minilm/fetch failed:\n{said}"
    );
    let fetched = String::from_utf8(output.stdout)?;
    Ok(PathBuf::from(fetched.lines().last().context("a path")?))
}

/// The same under `folder`, with `model.onnx` in it.
pub fn with_onnx(folder: &Path) -> anyhow::Result<PathBuf> {
    let fetched = fetched()?;
    let model = folder.join("minilm");
    // Where what came next failed, it is there.
    std::fs::remove_dir_all(&model).ok();
    std::fs::create_dir(&model)?;
    for entry in std::fs::read_dir(&fetched)? {
        let entry = entry?;
        symlink(entry.path(), model.join(entry.file_name()))?;
    }
    let exported = programs::python("export_onnx.py")?
        .arg(&model)
        .stdin(Stdio::null())
        .output()
        .context("export_onnx.py does not start")?;
    let said = String::from_utf8_lossy(&exported.stderr);
    ensure!(exported.status.success(), "export_onnx.py failed:\n{said}");
    Ok(model)
}
