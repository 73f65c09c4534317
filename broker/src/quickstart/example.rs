//! The fraud example as it is committed under `config/examples/fraud/`, carried in the binary.

use std::io;
use std::path::{Path, PathBuf};

/// The input topic.
pub const INPUT: &str = "transactions";
/// The derived topic.
pub const DERIVED: &str = "transactions.scored";

/// What the rules of the config produce to.
pub const ALERTS: &str = "fraud.alerts";

/// The config.
pub const CONFIG: &str = include_str!("../../../config/examples/fraud/milena.toml");

const FILES: [(&str, &[u8]); 3] = [
    (CONFIG_FILE, CONFIG.as_bytes()),
    (
        "model/config.json",
        include_bytes!("../../../config/examples/fraud/model/config.json"),
    ),
    (
        "model/model.safetensors",
        include_bytes!("../../../config/examples/fraud/model/model.safetensors"),
    ),
];
const CONFIG_FILE: &str = "milena.toml";

/// Writes config and model into a folder, where they are not there as they are here, and returns the
/// config's path.
pub fn install(folder: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(folder.join("model"))?;
    for (name, content) in FILES {
        let path = folder.join(name);
        if std::fs::read(&path).is_ok_and(|present| present == content) {
            continue;
        }
        std::fs::write(path, content)?;
    }
    Ok(folder.join(CONFIG_FILE))
}
