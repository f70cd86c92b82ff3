//! The corner cases of the specification that concern the conversation (spec: xds.md 3 and 7).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use prost::Message as _;

use super::*;
use crate::model::addr::NetworkAddress;
use crate::proto::discovery::{Any, Resource};
use crate::proto::{security as sec, workload as raw};
use crate::snapshot::Snapshot;
use crate::snapshot::builder::Builder;

const ADDRESS: ResourceType = ResourceType::Address;
const AUTHORIZATION: ResourceType = ResourceType::Authorization;

/// A client with the state it feeds.
struct World {
    client: Client<&'static str>,
    builder: Builder,
    snapshot: Arc<Snapshot>,
    slices: usize,
}

impl World {
    fn new(mode: Mode) -> Self {
        let mut builder = Builder::new("".into());
        let snapshot = builder.apply(crate::snapshot::builder::Change::default());
        Self {
            client: Client::new(Node::default(), mode),
            builder,
            snapshot,
            slices: 0,
        }
    }

    fn connected(mode: Mode) -> Self {
        let mut world = Self::new(mode);
        world.client.connected();
        world
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse) -> Outcome<&'static str> {
        let mut intake = self.client.begin(response);
        self.slices = 0;
        while let Some(change) = intake.next_change() {
            self.snapshot = self.builder.apply(change);
            self.slices += 1;
        }
        self.client.finish(intake)
    }

    fn endpoints(&self, hostname: &str) -> usize {
        let service = self.snapshot.service_by_host(hostname, None);
        service.map_or(0, |service| service.endpoints.len())
    }
}

fn response(
    kind: ResourceType,
    resources: Vec<Resource>,
    removed: &[&str],
) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.url().to_owned(),
        nonce: "n1".into(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn resource(name: &str, value: Vec<u8>) -> Resource {
    Resource {
        name: name.to_owned(),
        version: format!("v-{name}"),
        resource: Some(Any {
            type_url: String::new(),
            value: value.into(),
        }),
        aliases: Vec::new(),
    }
}

fn address(name: &str, kind: raw::address::Type) -> Resource {
    let r#type = Some(kind);
    resource(name, raw::Address { r#type }.encode_to_vec())
}

const SERVICE: &str = "ns/svc.ns";

fn a_workload(uid: &str, number: u8) -> raw::Workload {
    let list = raw::PortList::default();
    raw::Workload {
        uid: uid.to_owned(),
        name: uid.to_owned(),
        namespace: "ns".into(),
        addresses: vec![vec![10, 0, 0, number]],
        services: [(SERVICE.to_owned(), list)].into(),
        ..raw::Workload::default()
    }
}

fn workload(uid: &str, number: u8) -> Resource {
    address(uid, raw::address::Type::Workload(a_workload(uid, number)))
}

fn unhealthy(uid: &str, number: u8) -> Resource {
    let message = raw::Workload {
        status: raw::WorkloadStatus::Unhealthy.into(),
        ..a_workload(uid, number)
    };
    address(uid, raw::address::Type::Workload(message))
}

fn service(allow_all: bool) -> Resource {
    let message = raw::Service {
        namespace: "ns".into(),
        hostname: "svc.ns".into(),
        load_balancing: allow_all.then(|| raw::LoadBalancing {
            health_policy: raw::load_balancing::HealthPolicy::AllowAll.into(),
            ..raw::LoadBalancing::default()
        }),
        ..raw::Service::default()
    };
    address(SERVICE, raw::address::Type::Service(message))
}

fn policy(name: &str, scope: sec::Scope) -> Resource {
    let (namespace, short) = name.split_once('/').unwrap();
    let message = sec::Authorization {
        name: short.into(),
        namespace: namespace.into(),
        scope: scope.into(),
        ..sec::Authorization::default()
    };
    resource(name, message.encode_to_vec())
}

fn found(world: &World, number: u8) -> bool {
    let address = NetworkAddress {
        network: "".into(),
        ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)),
    };
    world.snapshot.workload_by_address(&address).is_some()
}

fn retained(request: &DeltaDiscoveryRequest) -> Vec<(&str, &str)> {
    let versions = request.initial_resource_versions.iter();
    let mut all: Vec<_> = versions.map(|(k, v)| (k.as_str(), v.as_str())).collect();
    all.sort_unstable();
    all
}

#[test]
fn first_stream_subscribes_to_both_types_and_holds_nothing() {
    let requests = World::new(Mode::All).client.connected();
    let urls: Vec<_> = requests
        .iter()
        .map(|request| request.type_url.as_str())
        .collect();
    assert_eq!(urls, [ADDRESS.url(), AUTHORIZATION.url()]);
    for request in requests {
        assert!(request.node.is_some());
        assert!(request.resource_names_subscribe.is_empty());
        assert!(request.resource_names_unsubscribe.is_empty());
        assert!(request.initial_resource_versions.is_empty());
        assert!(request.response_nonce.is_empty());
    }
}

#[test]
fn on_demand_subscribes_to_no_address_and_to_all_policies() {
    let requests = World::new(Mode::OnDemand).client.connected();
    assert_eq!(requests[0].resource_names_subscribe, ["*"]);
    assert_eq!(requests[0].resource_names_unsubscribe, ["*"]);
    assert!(requests[1].resource_names_subscribe.is_empty());
    assert!(requests[1].resource_names_unsubscribe.is_empty());
}

#[test]
fn good_response_is_acknowledged_with_its_nonce_alone() {
    let mut world = World::connected(Mode::All);
    let reply = world
        .receive(response(ADDRESS, vec![workload("a", 1)], &[]))
        .reply
        .unwrap();
    assert_eq!(reply.type_url, ADDRESS.url());
    assert_eq!(reply.response_nonce, "n1");
    assert_eq!(reply.error_detail, None);
    assert_eq!(reply.node, None);
    assert!(found(&world, 1));
}

#[test]
fn state_is_complete_once_both_types_were_acknowledged() {
    let mut world = World::connected(Mode::All);
    assert!(!world.receive(response(ADDRESS, vec![], &[])).synced_now);
    assert!(!world.client.is_synced());
    assert!(
        world
            .receive(response(AUTHORIZATION, vec![], &[]))
            .synced_now
    );
    assert!(
        !world
            .receive(response(AUTHORIZATION, vec![], &[]))
            .synced_now
    );
    world.client.disconnected();
    assert!(world.client.is_synced());
}

#[test]
fn refused_first_response_does_not_complete_the_state() {
    let mut world = World::connected(Mode::All);
    world.receive(response(ADDRESS, vec![], &[]));
    let bad = || vec![resource("ns/p", vec![0xff])];
    assert!(
        !world
            .receive(response(AUTHORIZATION, bad(), &[]))
            .synced_now
    );
    assert!(
        world
            .receive(response(AUTHORIZATION, vec![], &[]))
            .synced_now
    );
}

#[test]
fn on_demand_state_is_complete_with_its_policies() {
    let mut world = World::connected(Mode::OnDemand);
    assert!(
        world
            .receive(response(AUTHORIZATION, vec![], &[]))
            .synced_now
    );
}

#[test]
fn bad_resource_is_named_and_the_good_one_is_applied_and_retained() {
    let mut world = World::connected(Mode::All);
    let resources = vec![resource("bad", vec![0xff, 0xff]), workload("good", 1)];
    let outcome = world.receive(response(ADDRESS, resources, &[]));
    let detail = outcome.reply.unwrap().error_detail.unwrap();
    assert_eq!(detail.code, 0);
    assert!(detail.message.starts_with("bad: "), "{}", detail.message);
    assert_eq!(outcome.rejected.len(), 1);
    assert!(found(&world, 1));
    world.client.disconnected();
    let requests = world.client.connected();
    assert_eq!(retained(&requests[0]), [("good", "v-good")]);
    assert_eq!(retained(&requests[1]), []);
}

#[test]
fn refused_update_leaves_the_former_version_in_force() {
    let mut world = World::connected(Mode::All);
    world.receive(response(ADDRESS, vec![workload("a", 1)], &[]));
    let mut bad = resource("a", vec![0xff]);
    bad.version = "v2".into();
    world.receive(response(ADDRESS, vec![bad], &[]));
    assert!(found(&world, 1));
    world.client.disconnected();
    assert_eq!(retained(&world.client.connected()[0]), [("a", "v-a")]);
}

#[test]
fn only_the_address_without_content_is_refused() {
    let mut world = World::connected(Mode::All);
    let neither = resource("empty", raw::Address::default().encode_to_vec());
    let mut missing = workload("missing", 9);
    missing.resource = None;
    let resources = vec![workload("a", 1), neither, missing, workload("b", 2)];
    let outcome = world.receive(response(ADDRESS, resources, &[]));
    let names: Vec<_> = outcome
        .rejected
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["empty", "missing"]);
    assert!(found(&world, 1) && found(&world, 2) && !found(&world, 9));
}

#[test]
fn unknown_type_is_acknowledged_and_changes_nothing() {
    let mut world = World::connected(Mode::All);
    let mut strange = response(ADDRESS, vec![workload("a", 1)], &["b"]);
    strange.type_url = "type.googleapis.com/other".into();
    let reply = world.receive(strange).reply.unwrap();
    assert_eq!(reply.type_url, "type.googleapis.com/other");
    assert_eq!(reply.error_detail, None);
    assert!(!found(&world, 1));
}

#[test]
fn what_was_taken_stays_until_it_is_removed_on_a_later_stream() {
    let mut world = World::connected(Mode::All);
    world.receive(response(ADDRESS, vec![workload("a", 1)], &[]));
    world.client.disconnected();
    assert!(found(&world, 1));
    assert_eq!(retained(&world.client.connected()[0]), [("a", "v-a")]);
    world.receive(response(ADDRESS, vec![], &["a"]));
    assert!(!found(&world, 1));
    world.client.disconnected();
    assert_eq!(retained(&world.client.connected()[0]), []);
}

#[test]
fn removal_wins_over_an_update_of_the_same_response() {
    let mut world = World::connected(Mode::All);
    world.receive(response(ADDRESS, vec![workload("a", 1)], &["a"]));
    assert!(!found(&world, 1));
    world.client.disconnected();
    assert_eq!(retained(&world.client.connected()[0]), []);
}

#[test]
fn removals_of_unknown_names_change_nothing_and_are_acknowledged() {
    let mut world = World::connected(Mode::All);
    world.receive(response(
        ADDRESS,
        vec![workload("a", 1), service(false)],
        &[],
    ));
    let outcome = world.receive(response(ADDRESS, vec![], &["/invalid", "no such uid"]));
    assert_eq!(outcome.reply.unwrap().error_detail, None);
    assert!(found(&world, 1));
    assert_eq!(world.endpoints("svc.ns"), 1);
}

#[test]
fn service_in_the_middle_of_its_workloads_gets_them_all() {
    let mut world = World::connected(Mode::All);
    let mut resources: Vec<_> = (1..=50).map(|n| workload(&format!("w{n}"), n)).collect();
    resources.insert(25, service(false));
    world.receive(response(ADDRESS, resources, &[]));
    assert_eq!(world.endpoints("svc.ns"), 50);
}

#[test]
fn endpoints_follow_health_and_the_policy_of_their_service() {
    for (allow_all, expected) in [(false, 2), (true, 3)] {
        let mut world = World::connected(Mode::All);
        let resources = vec![
            workload("a", 1),
            unhealthy("b", 2),
            workload("c", 3),
            service(allow_all),
        ];
        world.receive(response(ADDRESS, resources, &[]));
        assert_eq!(world.endpoints("svc.ns"), expected);
    }
}

#[test]
fn endpoints_dropped_for_health_come_back_only_with_their_workload() {
    let mut world = World::connected(Mode::All);
    let resources = vec![service(true), workload("a", 1), unhealthy("b", 2)];
    world.receive(response(ADDRESS, resources, &[]));
    let mut counts = vec![world.endpoints("svc.ns")];
    for allow_all in [false, true] {
        world.receive(response(ADDRESS, vec![service(allow_all)], &[]));
        counts.push(world.endpoints("svc.ns"));
    }
    assert_eq!(counts, [2, 1, 1]);
    world.receive(response(ADDRESS, vec![unhealthy("b", 2)], &[]));
    assert_eq!(world.endpoints("svc.ns"), 2);
}

#[test]
fn policy_that_changes_its_scope_leaves_its_namespace() {
    let mut world = World::connected(Mode::All);
    let listed = |world: &World| world.snapshot.namespace_policies("ns").count();
    world.receive(response(
        AUTHORIZATION,
        vec![policy("ns/p", sec::Scope::Namespace)],
        &[],
    ));
    assert_eq!(listed(&world), 1);
    let selector = policy("ns/p", sec::Scope::WorkloadSelector);
    world.receive(response(AUTHORIZATION, vec![selector], &[]));
    assert_eq!(listed(&world), 0);
    assert!(world.snapshot.policy("ns/p").is_some());
    world.receive(response(AUTHORIZATION, vec![], &["ns/p"]));
    assert!(world.snapshot.policy("ns/p").is_none());
}

/// Many workloads, some of them unhealthy, and at the very end their service, in one response.
fn large(count: u32) -> Vec<Resource> {
    let make = |n: u32| {
        let [_, b, c, d] = n.to_be_bytes();
        let uid = format!("w{n}");
        let message = raw::Workload {
            addresses: vec![vec![10, b, c, d]],
            status: i32::from(n.is_multiple_of(10)),
            ..a_workload(&uid, 0)
        };
        address(&uid, raw::address::Type::Workload(message))
    };
    (1..=count).map(make).chain([service(true)]).collect()
}

#[test]
fn large_response_is_applied_in_slices_with_the_result_of_one_push() {
    let mut world = World::connected(Mode::All);
    world.receive(response(ADDRESS, vec![service(false)], &[]));
    world.receive(response(ADDRESS, large(3_000), &[]));
    assert!(world.slices >= 6, "{} slices", world.slices);
    assert_eq!(world.snapshot.counts().workloads, 3_000);
    assert_eq!(
        world.endpoints("svc.ns"),
        3_000,
        "the service's new record admits the unhealthy"
    );
    let all: Vec<_> = (1..=3_000).map(|n| format!("w{n}")).collect();
    let names: Vec<_> = all.iter().map(String::as_str).collect();
    world.receive(response(ADDRESS, vec![], &names));
    assert!(world.slices >= 6);
    assert_eq!(world.snapshot.counts().workloads, 0);
}

#[test]
fn waiter_is_answered_once_the_state_holds_what_it_asked_for() {
    let mut world = World::connected(Mode::OnDemand);
    let now = start();
    let request = world.client.look_up("w7", "waiter", now).unwrap().unwrap();
    assert_eq!(request.resource_names_subscribe, ["w7"]);
    assert_eq!(request.type_url, ADDRESS.url());
    assert!(request.node.is_none() && request.response_nonce.is_empty());
    let mut intake = world.client.begin(response(ADDRESS, large(3_000), &[]));
    while let Some(change) = intake.next_change() {
        world.snapshot = world.builder.apply(change);
    }
    assert!(world.snapshot.workload_by_uid("w7").is_some());
    assert_eq!(world.client.finish(intake).answered, ["waiter"]);
    assert_eq!(world.client.next_deadline(), None);
}

#[test]
fn every_waiter_of_a_key_is_answered_and_the_key_is_asked_for_once() {
    let mut world = World::connected(Mode::OnDemand);
    let now = start();
    assert!(world.client.look_up("a", "one", now).unwrap().is_some());
    assert!(world.client.look_up("a", "two", now).unwrap().is_none());
    assert!(world.client.look_up("b", "other", now).unwrap().is_some());
    let outcome = world.receive(response(ADDRESS, vec![workload("a", 1)], &[]));
    assert_eq!(outcome.answered, ["one", "two"]);
    let outcome = world.receive(response(ADDRESS, vec![], &["b"]));
    assert_eq!(
        outcome.answered,
        ["other"],
        "told that there is no such thing"
    );
}

#[test]
fn waiter_for_an_address_is_answered_by_the_alias_of_its_workload() {
    let mut world = World::connected(Mode::OnDemand);
    let asked = world
        .client
        .look_up("/10.0.0.1", "waiter", start())
        .unwrap();
    assert!(asked.is_some());
    let mut named = workload("a", 1);
    named.aliases = vec!["/10.0.0.1".into()];
    let outcome = world.receive(response(ADDRESS, vec![named], &[]));
    assert_eq!(outcome.answered, ["waiter"]);
    assert!(found(&world, 1));
}

#[test]
fn waiter_for_a_refused_resource_does_not_wait_for_its_deadline() {
    let mut world = World::connected(Mode::OnDemand);
    assert!(world.client.look_up("bad", "waiter", start()).is_ok());
    let outcome = world.receive(response(ADDRESS, vec![resource("bad", vec![0xff])], &[]));
    assert_eq!(outcome.answered, ["waiter"]);
}

#[test]
fn waiters_end_at_their_deadline_in_the_order_they_came() {
    let mut world = World::connected(Mode::OnDemand);
    let (now, second) = (start(), Duration::from_secs(1));
    assert!(world.client.look_up("a", "first", now).is_ok());
    assert!(world.client.look_up("a", "second", now + second).is_ok());
    assert_eq!(world.client.next_deadline(), Some(now + DEMAND_TIMEOUT));
    assert!(world.client.expire(now + second).is_empty());
    assert_eq!(world.client.expire(now + DEMAND_TIMEOUT), ["first"]);
    assert_eq!(
        world.client.next_deadline(),
        Some(now + second + DEMAND_TIMEOUT)
    );
    let outcome = world.receive(response(ADDRESS, vec![workload("a", 1)], &[]));
    assert_eq!(outcome.answered, ["second"]);
    assert!(world.client.expire(now + 9 * DEMAND_TIMEOUT).is_empty());
}

#[test]
fn look_ups_without_a_stream_are_sent_on_the_next_one_up_to_a_limit() {
    let mut world = World::new(Mode::OnDemand);
    let now = start();
    for number in 0..100 {
        let asked = world.client.look_up(&format!("w{number}"), "waiter", now);
        assert!(asked.unwrap().is_none());
    }
    let refused = world.client.look_up("one more", "waiter", now);
    assert_eq!(refused.unwrap_err(), ("waiter", DemandError::Offline));
    let requests = world.client.connected();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[2].resource_names_subscribe.len(), 100);
    assert_eq!(requests[0].initial_resource_versions.len(), 100);
    assert!(world.client.look_up("one more", "waiter", now).is_ok());
}

#[test]
fn keys_asked_for_are_named_again_on_the_next_stream_until_they_are_gone() {
    let mut world = World::connected(Mode::OnDemand);
    let now = start();
    assert!(world.client.look_up("a", "x", now).is_ok());
    assert!(world.client.look_up("b", "y", now).is_ok());
    world.receive(response(ADDRESS, vec![], &["b"]));
    world.client.disconnected();
    assert_eq!(retained(&world.client.connected()[0]), [("a", "")]);
}

#[test]
fn keys_no_resource_can_have_are_refused() {
    let mut world = World::connected(Mode::OnDemand);
    for key in ["", "*", &"x".repeat(4096)] {
        let refused = world.client.look_up(key, "waiter", start());
        assert_eq!(refused.unwrap_err(), ("waiter", DemandError::BadKey));
    }
}

#[test]
fn response_of_a_stream_that_is_gone_is_applied_but_not_answered() {
    let mut world = World::connected(Mode::All);
    let mut intake = world
        .client
        .begin(response(ADDRESS, vec![workload("a", 1)], &[]));
    while let Some(change) = intake.next_change() {
        world.snapshot = world.builder.apply(change);
    }
    world.client.disconnected();
    let outcome = world.client.finish(intake);
    assert_eq!(outcome.reply, None);
    assert!(found(&world, 1));
    assert_eq!(retained(&world.client.connected()[0]), [("a", "v-a")]);
}

#[test]
fn refusals_stay_short_however_much_is_refused() {
    let mut world = World::connected(Mode::All);
    let bad: Vec<_> = (0..5_000)
        .map(|n| resource(&format!("bad{n}"), vec![0xff]))
        .collect();
    let outcome = world.receive(response(ADDRESS, bad, &[]));
    assert_eq!(outcome.rejected.len(), 5_000);
    let message = outcome.reply.unwrap().error_detail.unwrap().message;
    assert!(message.len() < ERROR_DETAIL_BYTES_MAX + 100);
    assert!(
        message.starts_with("bad0: ") && message.ends_with(" more"),
        "{message}"
    );
}

#[test]
fn names_longer_than_any_real_one_are_refused() {
    let mut world = World::connected(Mode::All);
    let long = "x".repeat(3_000);
    let outcome = world.receive(response(ADDRESS, vec![workload(&long, 1)], &[]));
    assert!(
        outcome.rejected[0]
            .1
            .to_string()
            .contains("name of 3000 bytes")
    );
    assert!(!found(&world, 1));
}

/// A point in time; tests only move on from it.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no shard that owns the clock"
)]
fn start() -> Instant {
    Instant::now()
}
