//! Builds Istio's control plane, as Go modules have it, into `target/peers`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::peers::{run, target_dir};

/// Our program around Istio's packages, below this crate's parent.
const SOURCES: &str = "../istio/peer";

/// Builds what is not built yet.
///
/// # Errors
/// A text for people: what failed and what is needed.
pub fn build() -> Result<(), String> {
    let peers = target_dir()?.join("peers");
    fs::create_dir_all(&peers).map_err(|e| format!("{}: {e}", peers.display()))?;
    let peers = peers.canonicalize().map_err(|e| e.to_string())?;
    let go = Command::new("go")
        .arg("version")
        .stdout(Stdio::null())
        .status();
    go.map_err(|e| format!("go version: {e}\nneeded: Go 1.26 or newer"))?;
    let program = peers.join("istio");
    run(Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCES)))?;
    println!("{}", program.display());
    Ok(())
}
