//! The tuning profiles of `tuning/profiles`, compared with the host.
//!
//! The files are the profiles: what they say is what the doctor compares. How a value is compared,
//! and what it does, stands in [`KNOBS`]; a test keeps both lists equal.

use std::borrow::Cow;

use super::finding::{Check, Finding, Group, Level};
use super::tree::{Tree, Unknown, sysctl_path};

/// A use of a node that its host can be tuned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Profile {
    /// Few connections that move much
    Throughput,
    /// Many small messages that must be quick
    Latency,
    /// Tens of thousands of connections
    ManyConnections,
}

/// Every profile, in the order of the report.
const PROFILES: [Profile; 3] = [
    Profile::Throughput,
    Profile::Latency,
    Profile::ManyConnections,
];

impl Profile {
    /// Name on the command line, in JSON, and of its folder.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::ManyConnections => "many-connections",
        }
    }

    /// Its sysctl file.
    const fn file(self) -> &'static str {
        match self {
            Self::Throughput => include_str!("../../../tuning/profiles/throughput/sysctl.conf"),
            Self::Latency => include_str!("../../../tuning/profiles/latency/sysctl.conf"),
            Self::ManyConnections => {
                include_str!("../../../tuning/profiles/many-connections/sysctl.conf")
            }
        }
    }

    /// Names and values of its sysctl file.
    fn settings(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let lines = self.file().lines().map(str::trim);
        lines
            .filter(|line| !line.starts_with('#') && !line.starts_with(';'))
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim()))
    }
}

/// How a host's value is compared with a profile's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The same.
    Same,
    /// At least as much; of several numbers, the last.
    AtLeast,
    /// At most as much.
    AtMost,
    /// As [`Rule::AtLeast`], and 0 means unlimited.
    AtLeastOrZero,
    /// A range at least as wide.
    AsWide,
}

/// Settings of a module that need not be loaded.
const CONNTRACK: &str = "net.netfilter.";

struct Knob {
    name: &'static str,
    rule: Rule,
    effect: &'static str,
}

const fn knob(name: &'static str, rule: Rule, effect: &'static str) -> Knob {
    Knob { name, rule, effect }
}

const KNOBS: &[Knob] = &[
    knob(
        "fs.nr_open",
        Rule::AtLeast,
        "caps the descriptors of a process, and so its connections",
    ),
    knob(
        "fs.pipe-user-pages-soft",
        Rule::AtLeastOrZero,
        "bulk connections beyond the quota are copied instead of spliced, at twice the CPU",
    ),
    knob(
        "net.core.netdev_max_backlog",
        Rule::AtLeast,
        "bursts beyond it are dropped before TCP sees them",
    ),
    knob(
        "net.core.somaxconn",
        Rule::AtLeast,
        "caps tuning.listenBacklog, the queue that a burst of new connections waits in",
    ),
    knob(
        "net.ipv4.ip_local_port_range",
        Rule::AsWide,
        "caps the connections to one destination address and port",
    ),
    knob(
        "net.ipv4.tcp_max_syn_backlog",
        Rule::AtLeast,
        "half-open connections beyond it are dropped or answered with SYN cookies",
    ),
    knob(
        "net.ipv4.tcp_migrate_req",
        Rule::AtLeast,
        "a restart that shares ports resets connections still in the old process's queue",
    ),
    knob(
        "net.ipv4.tcp_mtu_probing",
        Rule::AtLeast,
        "a path that swallows ICMP stops connections whose segments are too large for it",
    ),
    knob(
        "net.ipv4.tcp_notsent_lowat",
        Rule::AtMost,
        "bytes queued in the kernel cannot be overtaken by a small message of another stream",
    ),
    knob(
        "net.ipv4.tcp_rmem",
        Rule::AtLeast,
        "caps the rate of one connection over distance: half of it for each round trip",
    ),
    knob(
        "net.ipv4.tcp_slow_start_after_idle",
        Rule::Same,
        "a tunnel that paused starts again at ten segments a round trip",
    ),
    knob(
        "net.ipv4.tcp_tw_reuse",
        Rule::Same,
        "ports of closed connections stay taken for a minute",
    ),
    knob(
        "net.ipv4.tcp_wmem",
        Rule::AtLeast,
        "caps the rate of one connection over distance",
    ),
    knob(
        "net.netfilter.nf_conntrack_max",
        Rule::AtLeast,
        "a full table drops the first packet of every new connection",
    ),
];

/// Compares the host with one profile, or with all. Differences from a chosen profile are warnings.
pub(super) fn compare(tree: &Tree, chosen: Option<Profile>, out: &mut Vec<Finding>) {
    let level = if chosen.is_some() {
        Level::Warning
    } else {
        Level::Note
    };
    let profiles: Vec<Profile> = chosen.map_or_else(|| PROFILES.to_vec(), |profile| vec![profile]);
    for knob in KNOBS {
        let wanted: Vec<(Profile, &str)> = profiles
            .iter()
            .flat_map(|profile| profile.settings().map(|setting| (*profile, setting)))
            .filter(|(_, (name, _))| *name == knob.name)
            .map(|(profile, (_, value))| (profile, value))
            .collect();
        if !wanted.is_empty() {
            out.extend(judge(tree, knob, &wanted, level));
        }
    }
}

/// `None`: the host has no such switch because a module is not loaded.
fn judge(tree: &Tree, knob: &Knob, wanted: &[(Profile, &str)], level: Level) -> Option<Finding> {
    let about = Check {
        id: "profile",
        group: Group::Profiles,
        subject: knob.name,
        effect: knob.effect,
    };
    let named = |mut finding: Finding| {
        finding.id = format!("profile.{}", knob.name);
        finding
    };
    let value = match tree.text(&sysctl_path(knob.name)) {
        Ok(value) => value.split_whitespace().collect::<Vec<_>>().join(" "),
        Err(Unknown::Absent) if knob.name.starts_with(CONNTRACK) => return None,
        Err(error) => return Some(named(about.unknown(&error))),
    };
    let mut differing: Vec<&(Profile, &str)> = Vec::new();
    for profile in wanted {
        match satisfies(knob.rule, &value, profile.1) {
            Some(true) => {}
            Some(false) => differing.push(profile),
            None => return Some(named(about.unknown(&Unknown::Odd(value)))),
        }
    }
    // Of two profiles that want more, the one that wants most decides.
    let Some((_, best)) = differing.iter().max_by_key(|(_, value)| last_number(value)) else {
        return Some(named(about.ok(value)));
    };
    let quoted: Cow<'_, str> = if best.contains(' ') {
        format!("\"{best}\"").into()
    } else {
        (*best).into()
    };
    let mut finding = named(about.note(
        format!("{value}; {best} wanted"),
        format!("sysctl -w {}={quoted}", knob.name),
    ));
    finding.level = level;
    finding.profiles = differing
        .iter()
        .map(|(profile, _)| profile.as_str())
        .collect();
    Some(finding)
}

fn last_number(text: &str) -> Option<u64> {
    text.split_whitespace().next_back()?.parse().ok()
}

/// Whether `value` does what `wanted` asks for; `None`: not understood.
fn satisfies(rule: Rule, value: &str, wanted: &str) -> Option<bool> {
    let (have, want) = (last_number(value)?, last_number(wanted)?);
    Some(match rule {
        Rule::Same => value == wanted,
        Rule::AtLeast => have >= want,
        Rule::AtMost => have <= want,
        Rule::AtLeastOrZero => have == 0 || have >= want,
        Rule::AsWide => {
            let first = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
            have.saturating_sub(first(value)?) >= want.saturating_sub(first(wanted)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_line_of_a_profile_is_compared_and_every_knob_is_in_a_profile() {
        let known: BTreeSet<&str> = KNOBS.iter().map(|knob| knob.name).collect();
        let used: BTreeSet<&str> = PROFILES
            .iter()
            .flat_map(|profile| profile.settings().map(|(name, _)| name))
            .collect();
        assert_eq!(used, known);
    }

    #[test]
    fn every_setting_of_a_profile_has_its_reason_above_it() {
        for profile in PROFILES {
            let lines: Vec<&str> = profile.file().lines().collect();
            assert!(lines[0].starts_with("# "), "{profile:?}");
            for pair in lines.windows(2) {
                let is_setting = |line: &str| !line.starts_with('#') && line.contains('=');
                assert!(
                    !is_setting(pair[1]) || pair[0].starts_with("# "),
                    "{}",
                    pair[1]
                );
            }
            for (name, value) in profile.settings() {
                let rule = KNOBS.iter().find(|knob| knob.name == name).unwrap().rule;
                assert_eq!(satisfies(rule, value, value), Some(true), "{name}");
            }
        }
    }

    #[test]
    fn values_are_compared_by_their_meaning() {
        for (rule, value, wanted, holds) in [
            (Rule::Same, "0", "0", Some(true)),
            (Rule::Same, "1", "0", Some(false)),
            (
                Rule::AtLeast,
                "4096 131072 6291456",
                "4096 131072 33554432",
                Some(false),
            ),
            (
                Rule::AtLeast,
                "1 2 33554432",
                "4096 131072 33554432",
                Some(true),
            ),
            (Rule::AtMost, "4294967295", "131072", Some(false)),
            (Rule::AtMost, "16384", "131072", Some(true)),
            (Rule::AtLeastOrZero, "0", "65536", Some(true)),
            (Rule::AtLeastOrZero, "16384", "65536", Some(false)),
            (Rule::AsWide, "32768 60999", "16384 65535", Some(false)),
            (Rule::AsWide, "10240 65000", "16384 65535", Some(true)),
            (Rule::AtLeast, "many", "1", None),
        ] {
            assert_eq!(
                satisfies(rule, value, wanted),
                holds,
                "{value} for {wanted}"
            );
        }
    }
}
