//! Verdicts on a running node: at the start of a stream, while it is dialled, while it is open.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::node::{
    DRIVERS, Mute, Pair, Plans, exchange, forward, is_reset, patient, pattern, pki, store, until,
    workload,
};
use crate::dataplane::shard::Message;
use crate::model::policy::{Policy, PolicyAction, PolicyMatch, PolicyScope, StringMatch};
use crate::model::workload::Workload;
use crate::snapshot::builder::Change;
use crate::telemetry::counters::Limit;
use crate::tls::credentials::{CredentialState, CredentialStore};

/// `default/NAME`, for connections of `default/SOURCE`.
fn policy(name: &str, scope: PolicyScope, action: PolicyAction, source: &str) -> Policy {
    let principal = format!("cluster.local/ns/default/sa/{source}");
    Policy {
        name: name.into(),
        namespace: "default".into(),
        scope,
        action,
        rules: vec![vec![vec![PolicyMatch {
            principals: vec![StringMatch::Exact(principal.into())],
            ..PolicyMatch::default()
        }]]],
        dry_run: false,
    }
}

fn put(policy: Policy) -> Change {
    let key = format!("{}/{}", policy.namespace, policy.name);
    Change {
        policies: vec![(key.into(), policy)],
        ..Change::default()
    }
}

fn deny(source: &str) -> Change {
    put(policy(
        "deny",
        PolicyScope::Namespace,
        PolicyAction::Deny,
        source,
    ))
}

fn replace(workload: Workload) -> Change {
    Change {
        workloads: vec![workload],
        ..Change::default()
    }
}

/// The backend with a list of policies of its own.
fn listing(backend: &Workload, keys: &[&str]) -> Workload {
    let mut backend = backend.clone();
    backend.authorization_policies = keys.iter().map(|key| Arc::from(*key)).collect();
    backend
}

#[test]
fn a_new_deny_policy_closes_the_open_stream_and_refuses_the_next() {
    for driver in DRIVERS {
        let mut pair = Pair::new(driver, |_| {});
        let (mut client, mut server) = pair.open();
        exchange(&mut client, &mut server);
        pair.server.change(deny("somebody-else"));
        exchange(&mut client, &mut server);
        pair.server.change(deny("client"));
        assert!(
            is_reset(&mut client),
            "{driver:?}: the open stream is reset"
        );
        assert!(
            is_reset(&mut server),
            "{driver:?}: so is the application's side"
        );
        assert!(is_reset(&mut pair.client.connect()), "{driver:?}");
        pair.server
            .logged("connection closed due to policy change: explicitly denied");
        pair.client.logged("http status: 401 Unauthorized");
        assert_eq!(pair.server.counters.policy_closed.get(), 1);
        assert!(pair.server.metrics().contains("response_flags=\"DENY\""));
        pair.stop(|| Message::Drain);
    }
}

/// Vector 86.
#[test]
fn an_open_stream_stays_when_the_last_allow_policy_goes() {
    for driver in DRIVERS {
        let mut pair = Pair::new(driver, |_| {});
        let allow = policy(
            "allow",
            PolicyScope::Namespace,
            PolicyAction::Allow,
            "client",
        );
        pair.server.change(put(allow));
        let (mut client, mut server) = pair.open();
        exchange(&mut client, &mut server);
        let rechecks = pair.server.counters.policy_rechecks.get();
        pair.server.change(Change {
            removed_policies: vec!["default/allow".into()],
            ..Change::default()
        });
        let counters = &pair.server.counters;
        until("a recheck", || counters.policy_rechecks.get() > rechecks);
        exchange(&mut client, &mut server);
        assert_eq!(counters.policy_closed.get(), 0, "{driver:?}");
        drop((client, server));
        pair.stop(|| Message::Drain);
    }
}

/// Vector 84 the other way: policies still hold while the node drains.
#[test]
fn a_policy_closes_streams_of_a_node_that_drains() {
    for driver in DRIVERS {
        let mut pair = Pair::new(driver, |_| {});
        let (mut client, mut server) = pair.open();
        exchange(&mut client, &mut server);
        pair.server.mailbox.send(Message::Drain).unwrap();
        exchange(&mut client, &mut server);
        pair.server.change(deny("client"));
        assert!(is_reset(&mut client), "{driver:?}");
        assert!(is_reset(&mut server), "{driver:?}");
        assert_eq!(pair.server.counters.policy_closed.get(), 1);
        pair.server.ended().unwrap();
        pair.client.stop(Message::Drain);
    }
}

/// A pair whose backend lists `default/late`, which is not known.
fn waiting_pair(driver: crate::config::DriverChoice, wait: Duration) -> Pair {
    let mut plans = Plans::new();
    plans.server.config.timeouts.policy_wait = wait;
    plans.server.change = replace(listing(&plans.backend, &["default/late"]));
    plans.start(driver)
}

#[test]
fn an_attached_policy_that_stays_unknown_denies() {
    for driver in DRIVERS {
        let pair = waiting_pair(driver, Duration::from_millis(100));
        assert!(is_reset(&mut pair.client.connect()), "{driver:?}");
        pair.server.reached(Limit::PolicyWait, 1);
        pair.server
            .logged("policy default/late is attached to the workload but not known yet");
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn an_attached_policy_that_arrives_in_time_decides() {
    for driver in DRIVERS {
        for (action, source, allowed) in [
            (PolicyAction::Allow, "client", true),
            (PolicyAction::Allow, "other", false),
            (PolicyAction::Deny, "client", false),
        ] {
            let mut pair = waiting_pair(driver, Duration::from_secs(60));
            let mut client = pair.client.connect();
            let relays = Arc::clone(&pair.server.counters);
            until("the stream", || relays.streams_server_opened.get() == 1);
            // News of something else do not end the wait.
            pair.server.change(replace(workload("bystander", None)));
            let late = policy("late", PolicyScope::WorkloadSelector, action, source);
            pair.server.change(put(late));
            if allowed {
                let (server, _) = pair.application.accept().unwrap();
                exchange(&mut client, &mut patient(server));
            } else {
                assert!(is_reset(&mut client), "{driver:?} {action:?}");
            }
            assert_eq!(pair.server.limit(Limit::PolicyWait), 0);
            drop(client);
            pair.stop(|| Message::Drain);
        }
    }
}

#[test]
fn a_dry_run_policy_counts_and_lets_pass() {
    for driver in DRIVERS {
        let mut pair = Pair::new(driver, |_| {});
        let mut dry = policy("dry", PolicyScope::Namespace, PolicyAction::Deny, "client");
        dry.dry_run = true;
        let (mut client, mut server) = pair.open();
        pair.server.change(put(dry));
        until("the recheck", || {
            pair.server.counters.policy_rechecks.get() == 1
        });
        exchange(&mut client, &mut server);
        assert_eq!(pair.server.counters.policy_dry_run_deny.get(), 0);
        let (mut next, mut application) = pair.open();
        exchange(&mut next, &mut application);
        assert_eq!(pair.server.counters.policy_dry_run_deny.get(), 1);
        assert_eq!(pair.server.counters.policy_closed.get(), 0);
        drop((client, server, next, application));
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_policy_added_to_the_workloads_list_closes_open_streams() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        let strict = policy(
            "strict",
            PolicyScope::WorkloadSelector,
            PolicyAction::Deny,
            "client",
        );
        plans.server.change.policies = put(strict).policies;
        let backend = plans.backend.clone();
        let mut pair = plans.start(driver);
        let (mut client, mut server) = pair.open();
        exchange(&mut client, &mut server);
        pair.server
            .change(replace(listing(&backend, &["default/strict"])));
        assert!(is_reset(&mut client), "{driver:?}");
        assert!(is_reset(&mut pair.client.connect()), "{driver:?}");
        pair.server.change(replace(backend));
        let (mut client, mut server) = pair.open();
        exchange(&mut client, &mut server);
        drop((client, server));
        pair.stop(|| Message::Drain);
    }
}

/// Whether a connection to `addr` waits for its first answer (proc_net_tcp.txt: state 02, SYN_SENT).
fn is_dialled(addr: SocketAddr) -> bool {
    let wanted = format!("{:08X}:{:04X} 02", 0x0100_007f, addr.port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    sockets.contains(&wanted)
}

#[test]
fn a_policy_that_flips_while_the_application_is_dialled_ends_the_stream() {
    for driver in DRIVERS {
        let mute = Mute::new();
        let mut plans = Plans::new();
        plans.client.listen[0] = forward(mute.addr, "client");
        plans.server.config.timeouts.dial = Duration::from_secs(60);
        plans.client.config.timeouts.connect_answer = Duration::from_secs(60);
        let mut pair = plans.start(driver);
        let mut client = pair.client.connect();
        until("the dial", || is_dialled(mute.addr));
        pair.server.change(deny("client"));
        assert!(is_reset(&mut client), "{driver:?}");
        pair.server.logged("connection closed due to policy change");
        pair.client.logged("http status: 401 Unauthorized");
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_stream_that_cannot_end_does_not_delay_the_end_of_others() {
    for driver in DRIVERS {
        let mut pair = Pair::new(driver, |_| {});
        // Nobody reads on either side, so buffers are full in both directions.
        let (stuck_client, stuck_server) = pair.open();
        for mut end in [&stuck_client, &stuck_server] {
            end.set_nonblocking(true).unwrap();
            let block = pattern(256 * 1024, 1);
            let mut refused = 0;
            while refused < 200 {
                if end.write(&block).is_ok() {
                    refused = 0;
                } else {
                    refused += 1;
                    std::thread::yield_now();
                }
            }
        }
        let mut others: Vec<_> = (0..300).map(|_| pair.open()).collect();
        for (client, server) in &mut others {
            exchange(client, server);
        }
        pair.server.change(deny("client"));
        for (client, _) in &mut others {
            assert!(is_reset(client), "{driver:?}");
        }
        assert_eq!(pair.server.counters.policy_closed.get(), 301);
        drop((stuck_client, stuck_server));
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn without_its_workload_a_node_waits_and_then_refuses() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        plans.server.change = Change::default();
        plans.server.config.timeouts.workload_wait = Duration::from_millis(100);
        let pair = plans.start(driver);
        assert!(is_reset(&mut pair.client.connect()), "{driver:?}");
        pair.server.reached(Limit::WorkloadWait, 1);
        pair.server
            .logged("failed to fetch information about local workload");
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_workload_that_appears_in_time_is_served() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        plans.server.change = Change::default();
        plans.server.config.timeouts.workload_wait = Duration::from_secs(60);
        plans.server.config.timeouts.handshake = Duration::from_secs(60);
        plans.client.config.timeouts.handshake = Duration::from_secs(60);
        let backend = plans.backend.clone();
        let mut pair = plans.start(driver);
        let mut client = pair.client.connect();
        until("the tunnel", || {
            pair.server.counters.connections_open.get() == 1
        });
        pair.server.change(replace(backend));
        let (server, _) = pair.application.accept().unwrap();
        exchange(&mut client, &mut patient(server));
        drop(client);
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn connections_outlive_their_deleted_workload_and_policies_still_reach_them() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        plans.server.config.timeouts.workload_wait = Duration::from_millis(100);
        let backend = plans.backend.clone();
        let mut pair = plans.start(driver);
        let (mut client, mut server) = pair.open();
        exchange(&mut client, &mut server);
        pair.server.change(Change {
            removed_addresses: vec![backend.uid],
            ..Change::default()
        });
        exchange(&mut client, &mut server);
        // A new stream in the same tunnel has no workload any more: 503.
        assert!(is_reset(&mut pair.client.connect()), "{driver:?}");
        pair.client.logged("http status: 503 Service Unavailable");
        exchange(&mut client, &mut server);
        pair.server.change(deny("client"));
        assert!(is_reset(&mut client), "{driver:?}");
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn an_address_that_changes_hands_ends_the_tunnels_of_its_former_owner() {
    for driver in DRIVERS {
        let plans = Plans::new();
        let backend = plans.backend.clone();
        let mut pair = plans.start(driver);
        let (mut client, mut server) = pair.open();
        exchange(&mut client, &mut server);
        let mut heir = backend.clone();
        heir.uid = "heir".into();
        heir.name = "heir".into();
        heir.service_account = "heir".into();
        let identity = heir.identity();
        pair.server.change(Change {
            workloads: vec![heir],
            removed_addresses: vec![backend.uid],
            ..Change::default()
        });
        pair.server.present(store(&pair.pki, &[identity]));
        // The client still expects the former owner: it must not be led to the heir.
        assert!(is_reset(&mut pair.client.connect()), "{driver:?}");
        pair.server
            .logged("but the address now belongs to spiffe://cluster.local/ns/default/sa/heir");
        assert!(
            is_reset(&mut pair.client.connect()),
            "{driver:?}: nor by a new tunnel"
        );
        exchange(&mut client, &mut server);
        drop((client, server));
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_missing_certificate_is_an_identity_error() {
    for driver in DRIVERS {
        for state in [None, Some(CredentialState::Unavailable("no file".into()))] {
            let mut plans = Plans::new();
            let identity = workload("client", None).identity();
            plans.client.credentials =
                CredentialStore::new(state.map(|state| (identity.clone(), state)));
            let pair = plans.start(driver);
            assert!(is_reset(&mut pair.client.connect()), "{driver:?}");
            pair.client.logged("identity error: ");
            let metrics = pair.client.metrics();
            assert!(
                metrics.contains("response_flags=\"IDENTITY_ERROR\""),
                "{metrics}"
            );
            pair.stop(|| Message::Drain);
        }
    }
}

#[test]
fn a_certificate_that_is_being_fetched_is_waited_for_on_both_sides() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        let (client, server) = (
            workload("client", None).identity(),
            plans.backend.identity(),
        );
        let fetching = |identity| CredentialStore::new([(identity, CredentialState::Initializing)]);
        plans.client.credentials = fetching(client.clone());
        plans.server.credentials = fetching(server.clone());
        for config in [&mut plans.client.config, &mut plans.server.config] {
            config.timeouts.workload_wait = Duration::from_secs(60);
            config.timeouts.handshake = Duration::from_secs(60);
        }
        let mut pair = plans.start(driver);
        let mut stream = pair.client.connect();
        until("the client", || {
            pair.client.counters.connections_open.get() == 1
        });
        pair.client.present(store(&pair.pki, &[client]));
        until("the tunnel", || {
            pair.server.counters.connections_open.get() == 1
        });
        pair.server.present(store(&pair.pki, &[server]));
        let (application, _) = pair.application.accept().unwrap();
        exchange(&mut stream, &mut patient(application));
        drop(stream);
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn an_unexpected_server_identity_is_refused() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        let mut impostor = plans.backend.clone();
        impostor.service_account = "impostor".into();
        plans.server.credentials = store(&plans.pki, &[impostor.identity()]);
        plans.server.change = replace(impostor);
        let pair = plans.start(driver);
        assert!(is_reset(&mut pair.client.connect()), "{driver:?}");
        pair.client.logged("io error: tls handshake");
        let metrics = pair.client.metrics();
        assert!(metrics.contains("response_flags=\"CONNECT\""), "{metrics}");
        assert_eq!(pair.client.counters.tunnels_client_opened.get(), 0);
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_client_of_a_foreign_authority_is_refused() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        plans.client.credentials = store(&pki(), &[workload("client", None).identity()]);
        let pair = plans.start(driver);
        assert!(is_reset(&mut pair.client.connect()), "{driver:?}");
        assert_eq!(pair.server.counters.streams_server_opened.get(), 0);
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn ports_of_our_own_listeners_are_refused_in_a_tunnel() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        let port = plans.application.local_addr().unwrap().port();
        plans.server.config.illegal_ports.push(port);
        let pair = plans.start(driver);
        let mut client: TcpStream = pair.client.connect();
        assert!(client.read(&mut [0]).is_err(), "{driver:?}");
        pair.server.logged("attempted recursive call to ourselves");
        pair.client.logged("http status: 503 Service Unavailable");
        pair.stop(|| Message::Drain);
    }
}
