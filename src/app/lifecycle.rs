//! Start-up order, the main loop, and the orderly stop.

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {}

/// x
pub fn run(_config: crate::config::Config) -> Result<(), super::RunError> {
    Ok(())
}
