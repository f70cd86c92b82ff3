//! Which certificates are fetched ahead, and how long they are needed (spec ca.md 3.3 and 3.4).

use std::io;

use super::*;
use crate::config::raw::{IPV6_FILE, RawConfig, Sources};
use crate::model::workload::{Workload, WorkloadProtocol};
use crate::snapshot::builder::{Builder, Change};

fn config(text: &str) -> Config {
    let read = |path: &Path| match path.to_str() {
        Some("c.yaml") => Ok(text.to_owned()),
        Some(IPV6_FILE) => Ok(String::new()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let sources = Sources::of_file("c.yaml".into(), &read);
    Config::try_from(RawConfig::read(&sources)).unwrap()
}

const SHARED: &str = "{mode: node, nodeName: here, localState: s, ca: {address: 'https://ca:1'}}";

fn workload(uid: &str, node: &str, account: &str) -> Workload {
    let text = format!(
        "workloads: [{{uid: {uid}, name: {uid}, namespace: default, serviceAccount: {account}, \
         node: {node}, protocol: HBONE, workloadIps: [], services: {{}}}}]"
    );
    let state = crate::control::local_state::parse(&text, "test").unwrap();
    state.workloads.into_iter().next().unwrap()
}

fn accounts(identities: &BTreeSet<Identity>) -> Vec<&str> {
    let accounts = identities.iter().map(|identity| &*identity.service_account);
    accounts.collect()
}

fn put(builder: &mut Builder, workloads: Vec<Workload>) -> Arc<Snapshot> {
    builder.apply(Change {
        workloads,
        ..Change::default()
    })
}

fn remove(builder: &mut Builder, uid: &str) -> Arc<Snapshot> {
    builder.apply(Change {
        removed_addresses: vec![uid.into()],
        ..Change::default()
    })
}

#[test]
fn identities_of_the_own_node_are_fetched_ahead_while_a_workload_has_them() {
    let config = config(SHARED);
    let mut builder = Builder::new("here".into());
    let far = put(&mut builder, vec![workload("far", "there", "a")]);
    assert_eq!(accounts(&needed(&config, &far)), [""; 0], "another node's");
    let mut plain = workload("plain", "here", "p");
    plain.protocol = WorkloadProtocol::Tcp;
    let plain = put(&mut builder, vec![plain]);
    assert_eq!(
        accounts(&needed(&config, &plain)),
        [""; 0],
        "takes no tunnels"
    );
    let mut native = workload("native", "here", "n");
    native.protocol = WorkloadProtocol::Tcp;
    native.native_tunnel = true;
    let native = put(&mut builder, vec![native]);
    let itself = "takes them itself, with what this node fetches";
    assert_eq!(accounts(&needed(&config, &native)), ["n"], "{itself}");
    remove(&mut builder, "native");
    let near = put(&mut builder, vec![workload("near", "here", "a")]);
    assert_eq!(accounts(&needed(&config, &near)), ["a"]);
    let both = put(&mut builder, vec![workload("second", "here", "a")]);
    assert_eq!(accounts(&needed(&config, &both)), ["a"], "one for both");
    for uid in ["far", "near"] {
        let left = remove(&mut builder, uid);
        assert_eq!(accounts(&needed(&config, &left)), ["a"], "{uid} is gone");
    }
    let none = remove(&mut builder, "second");
    assert_eq!(accounts(&needed(&config, &none)), [""; 0]);
}

#[test]
fn without_a_node_name_an_authority_is_asked_on_demand_only() {
    let config = config("{mode: node, localState: s, ca: {address: 'https://ca:1'}}");
    let mut builder = Builder::new("".into());
    let snapshot = put(&mut builder, vec![workload("w", "here", "a")]);
    assert_eq!(accounts(&needed(&config, &snapshot)), [""; 0]);
}

#[test]
fn what_a_shard_asked_for_stays_needed_while_a_local_workload_has_it() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = config("{mode: node, localState: s, ca: {address: 'https://127.0.0.1:1'}}");
    let mut builder = Builder::new("".into());
    let snapshot = put(&mut builder, vec![workload("w", "here", "a")]);
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let certificates = Certificates::start(&config, &snapshot).await.unwrap();
        let mut needs = certificates.needed.subscribe();
        assert_eq!(accounts(&needs.borrow_and_update()), [""; 0]);
        let identity = workload("w", "here", "a").identity();
        let asker = certificates.asker().unwrap();
        assert!(asker.asks(&identity));
        needs.changed().await.unwrap();
        assert_eq!(accounts(&needs.borrow_and_update()), ["a"]);
        let other = put(&mut builder, vec![workload("v", "here", "b")]);
        certificates.need(&config, &other);
        assert_eq!(accounts(&needs.borrow_and_update()), ["a"]);
        let gone = remove(&mut builder, "w");
        certificates.need(&config, &gone);
        assert_eq!(accounts(&needs.borrow_and_update()), [""; 0]);
    });
}

#[test]
fn a_directory_is_not_asked_by_connections() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = config("{mode: node, localState: s, identityDir: /nonexistent}");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let certificates = Certificates::start(&config, &Snapshot::default())
            .await
            .unwrap();
        assert!(certificates.asker().is_none());
    });
}

#[test]
fn listed_workloads_are_needed_wherever_their_certificates_come_from() {
    let config = config(
        "{mode: node, localState: s, ca: {address: 'https://ca:1'}, node: {workloads: \
         [{name: w, namespace: default, serviceAccount: a, uids: [1]}]}}",
    );
    let mut builder = Builder::new("".into());
    let workloads = vec![workload("w", "x", "a"), workload("v", "x", "b")];
    assert_eq!(
        accounts(&needed(&config, &put(&mut builder, workloads))),
        ["a"]
    );
}
