//! Kernel settings that namespaces do not have of their own: set, and put back whatever happens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::peers::Running;

/// Settings of the host as they were. Dropping it puts them back.
#[derive(Debug)]
pub(super) struct Restored {
    before: Vec<(PathBuf, String)>,
}

impl Restored {
    /// Sets each of `settings` below `root` (`/proc/sys`).
    ///
    /// # Errors
    /// If one cannot be read or written; those set before are put back.
    pub(super) fn set(root: &Path, settings: &BTreeMap<String, String>) -> Result<Self> {
        let mut restored = Self { before: Vec::new() };
        for (name, value) in settings {
            let path = root.join(name.replace('.', "/"));
            let what = || format!("host setting {name}");
            let before = fs::read_to_string(&path).map_err(Error::io(what()))?;
            restored
                .before
                .push((path.clone(), before.trim_end().to_owned()));
            fs::write(&path, value).map_err(Error::io(what()))?;
        }
        Ok(restored)
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        for (path, value) in self.before.iter().rev() {
            if let Err(error) = fs::write(path, value) {
                eprintln!("{}: {value} could not be put back: {error}", path.display());
            }
        }
    }
}

/// Spreads the packets that both hosts receive over the CPUs of `mask`.
///
/// # Errors
/// If the kernel refuses the mask.
pub(super) fn spread_packets(running: &Running, mask: &str) -> Result<()> {
    for host in [&running.lab.client, &running.lab.server] {
        let script = "for queue in /sys/class/net/eth0/queues/rx-*; do echo \"$0\" > $queue/rps_cpus || exit 1; done";
        let output = host
            .command("sh")
            .args(["-c", script, mask])
            .output()
            .map_err(Error::io("RPS"))?;
        if !output.status.success() {
            return Err(Error::Failed {
                what: format!("RPS with mask {mask}"),
                status: output.status.to_string(),
                output: String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_put_back_also_when_a_later_one_fails() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("net/core");
        fs::create_dir_all(&file).unwrap();
        let file = file.join("busy_read");
        fs::write(&file, "7\n").unwrap();
        let set = |names: &[&str]| {
            let settings = names
                .iter()
                .map(|name| ((*name).to_owned(), "50".to_owned()));
            Restored::set(root.path(), &settings.collect())
        };
        let now = || fs::read_to_string(&file).unwrap();
        let restored = set(&["net.core.busy_read"]).unwrap();
        assert_eq!(now(), "50");
        drop(restored);
        assert_eq!(now(), "7");
        assert!(set(&["net.core.busy_read", "net.core.missing"]).is_err());
        assert_eq!(now(), "7");
    }
}
