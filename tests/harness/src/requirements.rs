//! What a test needs from the machine, and whether lacking it skips or fails the test.

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;

/// Whether network namespaces can be made here. Otherwise the test is skipped, or fails if
/// `REQUIRE_NETNS=1`.
///
/// # Panics
/// If namespaces are required and cannot be made.
#[must_use]
pub fn has_netns(test: &str) -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        Some("needs root for network namespaces")
    } else if !program_exists("ip") || !program_exists("nft") {
        Some("needs the programs ip and nft (tests/install-deps)")
    } else {
        None
    };
    decide(test, reason, "REQUIRE_NETNS")
}

/// Path of the Envoy that `cargo xtask peers` installed. `None` skips the test, or fails it if
/// `REQUIRE_PEERS=1`.
///
/// # Panics
/// If peers are required and not installed.
#[must_use]
pub fn envoy(test: &str) -> Option<PathBuf> {
    let path = target_dir().join("peers/envoy");
    let reason = (!path.exists()).then_some("needs Envoy: run cargo xtask peers");
    decide(test, reason, "REQUIRE_PEERS").then_some(path)
}

/// Path of Istio's control plane as `cargo xtask istio` built it. `None` skips the test, or fails it if
/// `REQUIRE_ISTIO=1`.
///
/// # Panics
/// If it is required and was not built.
#[must_use]
pub fn istio(test: &str) -> Option<PathBuf> {
    let path = target_dir().join("peers/istio");
    let reason = (!path.exists()).then_some("needs Istio's control plane: run cargo xtask istio");
    decide(test, reason, "REQUIRE_ISTIO").then_some(path)
}

/// Whether the binary under test was built with `--features faults`. Otherwise the test is skipped,
/// or fails if `REQUIRE_FAULTS=1`.
///
/// # Panics
/// If the feature is required and was not built.
#[must_use]
pub fn has_faults(test: &str, built: bool) -> bool {
    let reason = (!built).then_some("needs cargo test --features faults");
    decide(test, reason, "REQUIRE_FAULTS")
}

/// Whether a control group (v2) could be `made`. Otherwise the part of the test that needs one is
/// skipped, or fails if `REQUIRE_CGROUP=1`.
///
/// # Panics
/// If groups are required and could not be made.
#[must_use]
pub fn has_cgroup(test: &str, made: bool) -> bool {
    let reason = (!made).then_some("needs a writable cgroup v2 for one of its workloads");
    decide(test, reason, "REQUIRE_CGROUP")
}

/// A number from the environment, for the size of a test; `default` when unset.
///
/// # Panics
/// If the variable is not a number.
#[must_use]
pub fn number(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|e| panic!("{variable}={text}: {e}")),
        Err(_) => default,
    }
}

/// A directory any user may write to and every user may read: nodes that change their user read
/// their configuration from it.
#[must_use]
pub fn scratch_dir() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("corelane-test-")
        .tempdir()
        .expect("temporary directory")
}

fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    )
}

fn program_exists(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(name).exists())
}

/// Says why a test is skipped, past the capture of test output, so that a green run cannot hide it.
fn decide(test: &str, missing: Option<&str>, require: &str) -> bool {
    let Some(reason) = missing else { return true };
    assert!(
        env::var(require).as_deref() != Ok("1"),
        "{require}=1, but {test} {reason}"
    );
    // One write, so that lines of tests that run at the same time do not mix.
    let line = format!("skipped: {test}: {reason}\n");
    let _ = io::stderr().write_all(line.as_bytes());
    false
}
