//! Two sources of one state: who counts when, and what becomes visible when.

use super::*;
use crate::control::local_state::{LocalState, change_from, parse};
use crate::model::workload::Workload;

fn file(workloads: &[(&str, &str)], policies: &[(&str, &str)]) -> LocalState {
    use std::fmt::Write as _;
    let list = |empty| if empty { " []\n" } else { "\n" };
    let mut text = format!("workloads:{}", list(workloads.is_empty()));
    for (uid, ip) in workloads {
        writeln!(
            text,
            "- {{uid: {uid}, name: {uid}, namespace: ns, workloadIps: [{ip}], services: \
             {{\"ns/svc.ns\": {{80: 8080}}}}}}"
        )
        .unwrap();
    }
    text.push_str("services:\n- {name: svc, namespace: ns, hostname: svc.ns, vips: [/10.9.0.1], ports: {80: 8080}}\n");
    text.push_str("policies:");
    text.push_str(list(policies.is_empty()));
    for (name, action) in policies {
        writeln!(
            text,
            "- {{name: {name}, namespace: ns, scope: Namespace, action: {action}, dryRun: false, \
             rules: [[[{{destinationPorts: [80]}}]]]}}"
        )
        .unwrap();
    }
    parse(&text, "test").unwrap()
}

/// A node with that file, and a control plane.
struct World {
    owner: SharedOwner,
    file: LocalState,
}

impl World {
    fn new(file: LocalState) -> Self {
        let first = change_from(&LocalState::default(), &file);
        Self {
            owner: Owner::shared("".into(), first, true),
            file,
        }
    }

    fn edit(&mut self, next: LocalState) -> bool {
        let change = change_from(&self.file, &next);
        self.file = next;
        self.owner.borrow_mut().local(change).is_some()
    }

    fn remote(&self, change: Change) {
        let mut owner = self.owner.borrow_mut();
        owner.remote(change);
        owner.publish();
    }

    fn ip(&self, uid: &str) -> Option<String> {
        let snapshot = self.owner.borrow().current();
        let workload = snapshot.workload_by_uid(uid)?;
        Some(workload.addresses[0].to_string())
    }

    fn removal(&self, addresses: &[&str], policies: &[&str]) {
        self.remote(Change {
            removed_addresses: addresses.iter().map(|name| (*name).into()).collect(),
            removed_policies: policies.iter().map(|name| (*name).into()).collect(),
            ..Change::default()
        });
    }
}

fn workloads(all: &[(&str, &str)]) -> Vec<Workload> {
    file(all, &[]).workloads
}

fn sent(all: &[(&str, &str)]) -> Change {
    Change {
        workloads: workloads(all),
        ..Change::default()
    }
}

#[test]
fn the_control_plane_counts_while_it_has_a_resource_and_the_file_after_that() {
    let mut world = World::new(file(&[("a", "10.0.0.1"), ("b", "10.0.0.2")], &[]));
    world.remote(sent(&[("a", "10.1.0.1"), ("c", "10.1.0.3")]));
    assert_eq!(world.ip("a").as_deref(), Some("10.1.0.1"));
    world.edit(file(&[("a", "10.0.0.9"), ("b", "10.0.0.2")], &[]));
    assert_eq!(
        world.ip("a").as_deref(),
        Some("10.1.0.1"),
        "the file is below"
    );
    world.removal(&["a", "b", "c"], &[]);
    assert_eq!(
        world.ip("a").as_deref(),
        Some("10.0.0.9"),
        "as the file says now"
    );
    assert_eq!(
        world.ip("b").as_deref(),
        Some("10.0.0.2"),
        "never was the control plane's"
    );
    assert_eq!(world.ip("c"), None);
}

#[test]
fn what_leaves_the_file_stays_while_the_control_plane_has_it() {
    let mut world = World::new(file(&[("a", "10.0.0.1")], &[]));
    world.remote(sent(&[("a", "10.1.0.1")]));
    world.edit(file(&[], &[]));
    assert_eq!(world.ip("a").as_deref(), Some("10.1.0.1"));
    world.removal(&["a"], &[]);
    assert_eq!(world.ip("a"), None);
}

#[test]
fn policies_of_the_file_cannot_be_removed_from_afar() {
    let world = World::new(file(&[], &[("p", "Deny")]));
    let action = || {
        let snapshot = world.owner.borrow().current();
        snapshot.policy("ns/p").map(|policy| policy.action)
    };
    let before = action();
    world.removal(&[], &["ns/p"]);
    assert_eq!(action(), before);
    let policies = file(&[], &[("p", "Allow")]).policies;
    world.remote(Change {
        policies,
        ..Change::default()
    });
    assert_ne!(action(), before);
    world.removal(&[], &["ns/p"]);
    assert_eq!(action(), before);
}

#[test]
fn a_service_that_the_control_plane_gives_up_keeps_its_endpoints() {
    let world = World::new(file(&[("a", "10.0.0.1")], &[]));
    let services = file(&[], &[]).services;
    world.remote(Change {
        services,
        ..Change::default()
    });
    world.removal(&["ns/svc.ns"], &[]);
    let snapshot = world.owner.borrow().current();
    let service = snapshot.service_by_host("svc.ns", None).unwrap();
    assert_eq!(service.endpoints.len(), 1);
}

#[test]
fn nothing_of_an_unfinished_response_is_seen_even_when_the_file_changes() {
    let mut world = World::new(file(&[], &[]));
    world.owner.borrow_mut().remote(sent(&[("a", "10.1.0.1")]));
    assert_eq!(world.ip("a"), None);
    let published = world.edit(file(&[("f", "10.0.0.1")], &[]));
    assert!(!published);
    assert_eq!((world.ip("a"), world.ip("f")), (None, None));
    let before = world.owner.borrow().current().generation();
    let after = world.owner.borrow_mut().publish().generation();
    assert_eq!(after, before + 1, "one generation for both");
    assert!(world.ip("a").is_some() && world.ip("f").is_some());
}

#[test]
fn snapshots_are_freed_by_their_owner_once_no_shard_reads_them() {
    let world = World::new(file(&[], &[]));
    let reader = world.owner.borrow().subscribe().reader();
    let held = Arc::downgrade(&reader.current());
    world.remote(sent(&[("a", "10.1.0.1")]));
    world.owner.borrow_mut().sweep();
    assert!(held.upgrade().is_some(), "a shard reads it");
    assert!(reader.current().workload_by_uid("a").is_some());
    assert!(held.upgrade().is_some(), "the shard did not free it");
    world.owner.borrow_mut().sweep();
    assert!(held.upgrade().is_none());
}
