//! What the host gives this process: CPUs, CPU quota, IPv6. Read once, through the injected reader.

use std::io;
use std::path::Path;

use super::raw::ReadFile;

/// Absent exactly when the kernel has no IPv6: not built, or `ipv6.disable=1`.
pub const IPV6_FILE: &str = "/proc/net/if_inet6";

/// Says `1` where IPv6 is switched off on the loopback interface.
const IPV6_LOOPBACK_OFF_FILE: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";

/// The host as this process sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// CPUs the scheduler may put us on, ascending.
    pub(super) cpus: Vec<usize>,
    /// CPUs the quota of our control group pays for, rounded up; `None`: no quota.
    pub(super) quota: Option<usize>,
    /// Whether the kernel has IPv6.
    pub(super) ipv6: bool,
    /// Whether the loopback interface has it too.
    pub(super) ipv6_loopback: bool,
}

impl Host {
    pub(super) fn read(cpus: &[usize], read_file: ReadFile<'_>) -> Self {
        let ipv6 = read_file(Path::new(IPV6_FILE));
        let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let ipv6 = !ipv6.as_ref().is_err_and(absent);
        // Unreadable counts as on (spec: zds.md, step 1).
        let off = read_file(Path::new(IPV6_LOOPBACK_OFF_FILE));
        let off = off.is_ok_and(|text| text.trim() == "1");
        Self {
            cpus: cpus.to_vec(),
            quota: quota(read_file),
            ipv6,
            ipv6_loopback: ipv6 && !off,
        }
    }

    /// CPUs worth a thread each, at least one.
    pub(super) fn usable_cpus(&self) -> usize {
        let quota = self.quota.unwrap_or(usize::MAX);
        self.cpus.len().min(quota).max(1)
    }

    /// Whether the quota, not the mask, limits us. Then other processes share our CPUs, and every
    /// process that pins its threads would pick the same first ones.
    pub(super) fn is_throttled(&self) -> bool {
        self.quota.is_some_and(|quota| quota < self.cpus.len())
    }
}

/// CPUs that the tightest quota of our control group and those above it pays for (cgroups(7),
/// version 2 and 1), rounded up; `None`: no quota.
#[must_use]
pub fn quota(read_file: ReadFile<'_>) -> Option<usize> {
    let groups = read_file(Path::new("/proc/self/cgroup")).ok()?;
    groups
        .lines()
        .filter_map(|line| group_quota(line, read_file))
        .min()
}

/// Quota along one line of `/proc/self/cgroup`: `ID:CONTROLLERS:PATH`.
fn group_quota(line: &str, read_file: ReadFile<'_>) -> Option<usize> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let roots = if controllers.is_empty() {
        vec!["/sys/fs/cgroup".to_owned()]
    } else if controllers.split(',').any(|controller| controller == "cpu") {
        vec![
            "/sys/fs/cgroup/cpu".to_owned(),
            format!("/sys/fs/cgroup/{controllers}"),
        ]
    } else {
        return None;
    };
    // Inside a container the path may be the host's, of which only the root is mounted here: a
    // folder that is absent is passed over.
    let folders = Path::new(path.trim_start_matches('/')).ancestors();
    let quota_in = |root: &String, folder: &Path| {
        let folder = Path::new(root).join(folder);
        if controllers.is_empty() {
            let text = read_file(&folder.join("cpu.max")).ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            cpus(quota, period)
        } else {
            let quota = read_file(&folder.join("cpu.cfs_quota_us")).ok()?;
            let period = read_file(&folder.join("cpu.cfs_period_us")).ok()?;
            cpus(quota.trim(), period.trim())
        }
    };
    folders
        .flat_map(|folder| roots.iter().filter_map(move |root| quota_in(root, folder)))
        .min()
}

/// Microseconds paid per period → CPUs, rounded up. `max` and -1 mean no quota.
fn cpus(quota: &str, period: &str) -> Option<usize> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    if period == 0 {
        return None;
    }
    usize::try_from(quota.div_ceil(period).max(1)).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn host(files: &[(&str, &str)]) -> Host {
        let files: BTreeMap<_, _> = files.iter().copied().collect();
        let read = |path: &Path| {
            let text = files
                .get(path.to_str().unwrap())
                .map(|text| (*text).to_owned());
            text.ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        Host::read(&[0, 1, 2, 3, 4, 5, 6, 7], &read)
    }

    #[test]
    fn the_tightest_quota_above_us_counts() {
        let host = host(&[
            ("/proc/self/cgroup", "0::/kubepods/pod1/c1\n"),
            ("/sys/fs/cgroup/kubepods/cpu.max", "400000 100000\n"),
            ("/sys/fs/cgroup/kubepods/pod1/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/kubepods/pod1/c1/cpu.max", "max 100000\n"),
        ]);
        assert_eq!((host.quota, host.usable_cpus()), (Some(2), 2));
        assert!(host.is_throttled());
    }

    #[test]
    fn version_one_groups_are_read_too() {
        let host = host(&[
            (
                "/proc/self/cgroup",
                "9:memory:/m\n4:cpu,cpuacct:/docker/x\n0::/\n",
            ),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(host.usable_cpus(), 1);
    }

    #[test]
    fn no_quota_leaves_the_cpus_of_the_mask() {
        for files in [
            vec![],
            vec![
                ("/proc/self/cgroup", "0::/\n"),
                ("/sys/fs/cgroup/cpu.max", "max 100000"),
            ],
            vec![
                ("/proc/self/cgroup", "1:cpu:/\n"),
                ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1"),
                ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
            ],
            vec![
                ("/proc/self/cgroup", "0::/\n"),
                ("/sys/fs/cgroup/cpu.max", "1600000 100000"),
            ],
        ] {
            let host = host(&files);
            assert_eq!(host.usable_cpus(), 8);
            assert!(!host.is_throttled());
        }
    }

    #[test]
    fn ipv6_is_there_exactly_when_the_kernel_lists_it() {
        assert!(!host(&[]).ipv6);
        assert!(host(&[("/proc/net/if_inet6", "")]).ipv6);
    }

    #[test]
    fn the_loopback_interface_may_lack_what_the_kernel_has() {
        let there = ("/proc/net/if_inet6", "");
        let switch = |text| ("/proc/sys/net/ipv6/conf/lo/disable_ipv6", text);
        assert!(!host(&[there, switch("1\n")]).ipv6_loopback);
        assert!(host(&[there, switch("0\n")]).ipv6_loopback);
        assert!(host(&[there]).ipv6_loopback);
        assert!(!host(&[switch("0\n")]).ipv6_loopback);
    }
}
