//! What only a node of many workloads has: a list of those it tells apart by more than their record.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::Node;
use super::super::problem::{Origin, ProblemKind};
use super::super::raw::{Candidate, RawLocalWorkload};
use super::super::schema::{Key, LOCAL_WORKLOADS};
use super::super::unbuilt::NO_NODE;
use super::super::value::{Bool, Integer, Kind, Name, PathText};
use super::discovery::check;
use super::resolver::Resolver;
use crate::model::local::{LocalWorkload, LocalWorkloads};
use crate::model::workload::WorkloadInfo;

/// Highest user id: the next number means "none" (setuid(2)).
const UID_MAX: u32 = u32::MAX - 1;

pub(super) fn node(r: &mut Resolver) -> Node {
    let raw = std::mem::take(&mut r.raw.local_workloads);
    let origin = raw.first().map(|first| first.origin.clone());
    let checked: Vec<_> = raw.iter().map(|raw| workload(r, raw)).collect();
    // One that is wrong in itself would only seem to clash with others.
    let whole: Option<Vec<_>> = checked.into_iter().collect();
    let workloads = LocalWorkloads::new(whole.unwrap_or_default());
    let workloads = workloads.unwrap_or_else(|ambiguities| {
        for ambiguity in ambiguities {
            let kind = ProblemKind::Conflict(ambiguity.to_string());
            let origin = origin.clone().unwrap_or(Origin::Default);
            r.problem_named(origin, LOCAL_WORKLOADS, kind);
        }
        LocalWorkloads::default()
    });
    let cgroup_root = if workloads.any_told_by_cgroup() {
        r.optional(Key::CgroupRoot, &PathText)
    } else {
        let unused = "no workload of `node.workloads` is told by `cgroups`";
        check(r, Key::CgroupRoot, &PathText, unused);
        None
    };
    Node {
        workloads,
        cgroup_root,
    }
}

/// In another mode it has no effect.
pub(super) fn without(r: &mut Resolver) {
    check(r, Key::CgroupRoot, &PathText, NO_NODE);
    if let Some(first) = r.raw.local_workloads.first() {
        let origin = first.origin.clone();
        r.warn_named(origin, LOCAL_WORKLOADS, ProblemKind::NoEffect(NO_NODE));
    }
}

/// `None`: something is wrong, and reported.
fn workload(r: &mut Resolver, raw: &RawLocalWorkload) -> Option<LocalWorkload> {
    let mut need = |key| one(r, raw, key, &FullName, true);
    let names = [need("name"), need("namespace"), need("serviceAccount")];
    let cgroups = all(r, raw, "cgroups", &CgroupPath);
    let uids = all(r, raw, "uids", &Integer(0..=UID_MAX));
    let addresses = all(r, raw, "addresses", &Ip);
    let ports = all(r, raw, "ports", &Integer(1..=u16::MAX));
    let given = raw.values.contains_key("default");
    let is_default = one(r, raw, "default", &Bool, false);
    let [Some(name), Some(namespace), Some(service_account)] = names else {
        return None;
    };
    Some(LocalWorkload {
        info: Arc::new(WorkloadInfo {
            name,
            namespace,
            service_account,
        }),
        cgroups: cgroups?,
        uids: uids?,
        addresses: addresses?,
        ports: ports?,
        is_default: if given { is_default? } else { false },
    })
}

fn path(key: &str) -> String {
    format!("{LOCAL_WORKLOADS}.{key}")
}

fn texts<'a>(raw: &'a RawLocalWorkload, key: &str) -> &'a [Candidate] {
    raw.values.get(key).map_or(&[], Vec::as_slice)
}

fn one<K: Kind>(
    r: &mut Resolver,
    raw: &RawLocalWorkload,
    key: &str,
    kind: &K,
    needed: bool,
) -> Option<K::Value> {
    let Some(candidate) = texts(raw, key).first() else {
        if needed {
            let expected = kind.expected();
            let missing = ProblemKind::Missing { expected };
            r.problem_named(raw.origin.clone(), &path(key), missing);
        }
        return None;
    };
    r.parse(&path(key), candidate, kind)
}

/// `None`: one is wrong; all that are wrong are reported.
fn all<K: Kind>(
    r: &mut Resolver,
    raw: &RawLocalWorkload,
    key: &str,
    kind: &K,
) -> Option<Vec<K::Value>> {
    let parsed: Vec<_> = texts(raw, key)
        .iter()
        .map(|candidate| r.parse(&path(key), candidate, kind))
        .collect();
    parsed.into_iter().collect()
}

/// A name that is not empty.
struct FullName;

impl Kind for FullName {
    type Value = Arc<str>;

    fn parse(&self, text: &str) -> Option<Arc<str>> {
        Name.parse(text).filter(|name| !name.is_empty())
    }

    fn expected(&self) -> String {
        Name.expected()
    }

    fn show(&self, value: &Arc<str>) -> String {
        value.to_string()
    }
}

/// An address without a port.
struct Ip;

impl Kind for Ip {
    type Value = IpAddr;

    fn parse(&self, text: &str) -> Option<IpAddr> {
        let ip: IpAddr = text.parse().ok()?;
        Some(ip.to_canonical()).filter(|ip| !ip.is_unspecified())
    }

    fn expected(&self) -> String {
        "an address of this host such as `10.0.0.5` or `fd00::5`".to_owned()
    }

    fn show(&self, value: &IpAddr) -> String {
        value.to_string()
    }
}

/// A control group below the root. The root has every process, which would leave users nothing to tell.
struct CgroupPath;

impl Kind for CgroupPath {
    type Value = Arc<str>;

    fn parse(&self, text: &str) -> Option<Arc<str>> {
        let below = text.strip_prefix('/')?;
        let fits = |name: &str| !matches!(name, "" | "." | "..");
        let good = !text.contains('\0') && below.split('/').all(fits);
        good.then(|| text.into())
    }

    fn expected(&self) -> String {
        "the path of a control group such as `/system.slice/web.service`, as in /proc/PID/cgroup"
            .to_owned()
    }

    fn show(&self, value: &Arc<str>) -> String {
        value.to_string()
    }
}
