//! CPU time and memory of processes, from proc(5).

use std::fs;
use std::ops::Sub;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What processes have used so far, all their threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// User time, seconds.
    pub user: f64,
    /// System time, seconds.
    pub system: f64,
    /// Resident memory, bytes.
    pub resident: u64,
}

impl Usage {
    /// User and system time, seconds.
    #[must_use]
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }

    /// Of these processes together.
    ///
    /// # Errors
    /// If one of them is gone.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let stat = read(&format!("/proc/{pid}/stat"))?;
            let status = read(&format!("/proc/{pid}/status"))?;
            let what = || unreadable(&format!("/proc/{pid}"));
            let (user, system) = ticks(&stat).ok_or_else(what)?;
            let per_second = rustix::param::clock_ticks_per_second() as f64;
            sum.user += user as f64 / per_second;
            sum.system += system as f64 / per_second;
            sum.resident += resident(&status).ok_or_else(what)?;
        }
        Ok(sum)
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            user: self.user - earlier.user,
            system: self.system - earlier.system,
            resident: self.resident.saturating_sub(earlier.resident),
        }
    }
}

/// The process and all its descendants: a master with its helpers counts as one.
#[must_use]
pub fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
        next += 1;
    }
    found
}

/// Whether somebody listens on that TCP port in the calling thread's network namespace. Asked without
/// connecting: a relay without an original destination would connect to itself.
#[must_use]
pub fn listens(port: u16) -> bool {
    let tables = ["tcp", "tcp6"].map(|name| format!("/proc/thread-self/net/{name}"));
    tables
        .iter()
        .any(|path| has_listener(&fs::read_to_string(path).unwrap_or_default(), port))
}

/// Looks for the port in a table of proc_pid_net(5), where state 0A is LISTEN.
fn has_listener(table: &str, port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        local.ends_with(&wanted) && fields.nth(1) == Some("0A")
    })
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(Error::io(path))
}

fn unreadable(what: &str) -> Error {
    Error::Unreadable {
        what: what.into(),
        why: "not in the form of proc(5)".into(),
    }
}

/// User and system time of `/proc/PID/stat`, in clock ticks.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    // The name may hold spaces and parentheses; fields after it start with the third one.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Resident memory of `/proc/PID/status`, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 17 5 0 0 20 0 3 0 1000 1 2";

    #[test]
    fn times_are_found_behind_a_name_with_parentheses() {
        assert_eq!(ticks(STAT), Some((17, 5)));
        assert_eq!(ticks("42 (cut"), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12_288));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn only_a_listening_socket_counts() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            0: 00000000:3A99 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:3A9A 00000000:0000 01 00000000:00000000\n";
        assert!(has_listener(table, 15_001));
        assert!(!has_listener(table, 15_002));
        assert!(!has_listener(table, 0));
    }

    #[test]
    fn a_running_process_has_usage_and_a_family() {
        let me = std::process::id();
        let usage = Usage::of(&[me]).unwrap();
        assert!(usage.resident > 0 && usage.cpu() >= 0.0);
        assert_eq!(family(me)[0], me);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(matches!(Usage::of(&[u32::MAX]), Err(Error::Io { .. })));
    }
}
