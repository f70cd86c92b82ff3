//! A new process takes over from an old one: both serve the same pods for a while, then the old one
//! finishes what it has.

use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::load::Load;
use corelane_harness::node::Driver;
use corelane_harness::shared::{Options, Shared};
use rustix::process::Signal;

use crate::CORELANE;

const PORT: u16 = 8_080;

/// Time to become ready, and to end once nothing is left to do.
const PROMPT: Duration = Duration::from_secs(10);

with_both_drivers!(a_new_process_takes_over_while_the_old_one_drains);

fn a_new_process_takes_over_while_the_old_one_drains(driver: Driver) {
    let pods = ["a", "b"];
    let mut shared = Shared::start(
        CORELANE,
        &Options {
            driver,
            pods: &pods,
            policies: &[],
            services: &[],
            settings: &[],
            env: &[("CONNECTION_TERMINATION_DEADLINE", "60s")],
        },
    );
    shared.serve(&pods);
    let app = Server::start(&shared.host("b"), PORT, apps::echo);
    let to = shared.at("b", PORT);
    let connect = move || apps::connect(to);
    let mut kept = shared.host("a").enter(connect).unwrap();
    assert_eq!(apps::round_trip(&mut kept, b"old").unwrap(), b"old");
    let load = Load::new(Some(shared.host("a")))
        .short(100, connect)
        .short(100, connect)
        .short(100, connect);

    let (next, session) = shared.start_next();
    for pod in pods {
        shared.add_to(&session, pod).unwrap();
    }
    session.snapshot().unwrap();
    clock::wait_for("the new node", PROMPT, || next.is_ready().then_some(()));
    let taken = |node: &corelane_harness::node::Node| {
        let count = node.metrics();
        count.sum(
            "istio_tcp_connections_opened_total",
            &[("reporter", "source")],
        )
    };
    // The kernel spreads connections over both.
    clock::wait_for("connections of the new node", PROMPT, || {
        (taken(&next) > 20.0 || load.failed() > 0).then_some(())
    });
    shared.node.process().signal(Signal::TERM);
    shared.session.wait_closed();
    let then = app.accepted();
    clock::wait_for("a while without the old node", PROMPT, || {
        (app.accepted() > then + 300 || load.failed() > 0).then_some(())
    });
    assert_eq!(apps::round_trip(&mut kept, b"still").unwrap(), b"still");
    let done = load.stop();
    println!("{done:?}");
    done.assert_whole(300);
    assert!(shared.node.process_mut().ended().is_none());
    drop(kept);
    let status = shared.node.process_mut().wait_end(PROMPT);
    assert_eq!(status.code(), Some(0));
    assert!(next.is_ready());
    let answer = shared.host("a").enter(|| apps::exchange(to, b"new"));
    assert_eq!(answer.unwrap(), b"new");
}
