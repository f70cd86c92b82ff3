//! A shared node whose pods come and go: all are reached, and nothing stays behind.

use std::net::IpAddr;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::node::{Driver, REPORT_LIMIT};
use corelane_harness::pki::spiffe;
use corelane_harness::requirements::{self, has_netns};
use corelane_harness::shared::{Options, Shared};

use super::{PORT, names, options};
use crate::CORELANE;

with_both_drivers!(pods_that_come_and_go_leave_nothing_behind);

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: u64,
    threads: usize,
    namespaces: usize,
    memory: u64,
}

impl Held {
    fn by(shared: &Shared) -> Self {
        let process = shared.node.process();
        Self {
            descriptors: process.descriptors(),
            threads: process.threads(),
            namespaces: process.namespaces(),
            memory: process.memory("VmRSS"),
        }
    }

    /// What it holds once it is idle; no more than `before`, memory aside.
    #[track_caller]
    fn settled(shared: &Shared, before: Option<Self>) -> Self {
        let mut last = Self::by(shared);
        // Threads for files are kept for a while after their work.
        let settled = clock::try_wait_for(8 * REPORT_LIMIT, || {
            last = Self::by(shared);
            let gauges = [
                "workload_manager_active_proxy_count",
                "corelane_shard_connections_open",
                "corelane_tunnels_open",
            ];
            let metrics = shared.node.metrics();
            let idle = gauges.iter().all(|name| metrics.sum(name, &[]).abs() < 0.5);
            let back = before.is_none_or(|before| {
                last.descriptors <= before.descriptors
                    && last.threads <= before.threads
                    && last.namespaces <= before.namespaces
            });
            (idle && back).then_some(())
        });
        let names = shared.node.process().thread_names();
        assert!(settled.is_some(), "{before:?} became {last:?}: {names:?}");
        last
    }
}

/// Each pod calls the next one, and is known there by its own identity.
fn all_reach_each_other(shared: &Shared, pods: &[&str]) {
    let next = |index: usize| pods[(index + 1) % pods.len()];
    for (index, pod) in pods.iter().enumerate() {
        let to = shared.at(next(index), PORT);
        let answer = shared.host(pod).enter(|| apps::exchange(to, b"x"));
        assert_eq!(answer.unwrap(), b"xx", "{pod}");
    }
    let seen = || {
        let lines = shared.node.access_lines().into_iter();
        lines
            .filter(|line| line.message == "connection complete" && line.field("error").is_empty())
            .filter(|line| line.field("direction") == "inbound")
            .map(|line| ["src.identity", "dst.identity"].map(|name| line.field(name).to_owned()))
            .collect::<std::collections::HashSet<_>>()
    };
    let identity = |pod: &str| spiffe("cluster.local", pod);
    clock::wait_for("a line for each call", REPORT_LIMIT, || {
        let seen = seen();
        let all = (0..pods.len()).map(|index| [pods[index], next(index)].map(identity));
        all.into_iter()
            .all(|call| seen.contains(&call))
            .then_some(())
    });
}

fn come_and_go(driver: Driver, pods: usize, rounds: u32) {
    let names: Vec<String> = (0..pods).map(|number| format!("p{number}")).collect();
    let pods: Vec<&str> = names.iter().map(String::as_str).collect();
    let web = IpAddr::from([10, 96, 0, 10]);
    let shared = Shared::start(
        CORELANE,
        &Options {
            services: &[("web", web)],
            env: &[("ISTIO_META_DNS_CAPTURE", "true")],
            ..options(driver, &pods)
        },
    );
    shared.serve(&[]);
    let apps: Vec<Server> = pods
        .iter()
        .map(|pod| Server::start(&shared.host(pod), PORT, apps::double))
        .collect();
    let round = |number: u32| {
        for pod in &pods {
            shared.add(pod).unwrap();
        }
        if number == 0 {
            all_reach_each_other(&shared, &pods);
        }
        let index = usize::try_from(number).unwrap() % pods.len();
        let (from, to) = (pods[index], pods[(index + 1) % pods.len()]);
        let to = shared.at(to, PORT);
        let mut open = shared.host(from).enter(|| {
            assert_eq!(apps::exchange(to, b"x").unwrap(), b"xx");
            assert_eq!(names::addresses("web", names::ask_udp), [web]);
            apps::connect(to).unwrap()
        });
        for pod in &pods {
            shared.session.delete(pod).unwrap();
        }
        // It is open while its pods go.
        let _ended = apps::read_to_end(&mut open);
    };
    // Buffers and logs are opened by the first, and the allocator keeps what it needed at most.
    let first = (rounds / 10).max(1);
    for number in 0..first {
        round(number);
    }
    let before = Held::settled(&shared, None);
    for number in first..rounds {
        round(number);
    }
    let after = Held::settled(&shared, Some(before));
    println!(
        "{rounds} rounds of {} pods: {before:?} became {after:?}",
        pods.len()
    );
    assert_eq!(after.namespaces, 1, "only its own namespace is held");
    let grown = after.memory.saturating_sub(before.memory);
    assert!(
        grown <= before.memory / 4,
        "{grown} bytes more than {}",
        before.memory
    );
    let all = rounds * u32::try_from(pods.len()).unwrap();
    for name in ["started", "stopped"] {
        let name = format!("workload_manager_proxies_{name}_total");
        shared.node.wait_metric(&name, &[], all);
    }
    let called: usize = apps.iter().map(Server::accepted).sum();
    assert!(called >= usize::try_from(rounds).unwrap());
    assert!(shared.node.is_ready());
}

fn pods_that_come_and_go_leave_nothing_behind(driver: Driver) {
    come_and_go(driver, 5, 40);
}

#[test]
#[ignore = "long: 110 pods, a thousand times"]
fn a_hundred_pods_that_come_and_go_a_thousand_times_leave_nothing_behind() {
    if has_netns("a_hundred_pods") {
        let rounds = requirements::number("SHARED_ROUNDS", 1_000);
        come_and_go(Driver::IoUring, 110, u32::try_from(rounds).unwrap());
    }
}
