//! Panics: contained where one connection is concerned, loud where the shard is.

use std::future::pending;
use std::net::TcpStream;
use std::panic::panic_any;

use super::node::{DRIVERS, Plans, Running, exchange, is_reset, patient, server, until};
use crate::config::DriverChoice;
use crate::dataplane::faults;
use crate::dataplane::rt::{self, Panicked};
use crate::dataplane::shard::Message;

/// One test, because a fault is armed for the whole process.
#[test]
fn a_panic_resets_only_its_connection() {
    for driver in DRIVERS {
        // In a plain relay.
        let (listener, addr) = server();
        let node = Running::start(driver, addr, |_| {});
        let mut survivor = node.connect();
        let mut application = patient(listener.accept().unwrap().0);
        exchange(&mut survivor, &mut application);
        faults::panic_on(addr.port());
        let mut victim = node.connect();
        assert!(is_reset(&mut victim), "{driver:?}");
        faults::panic_on(0);
        until("the panic to be counted", || {
            node.counters.panics.get() == 1
        });
        exchange(&mut survivor, &mut application);
        until("the victim's place", || {
            node.counters.connections_open.get() == 1
        });
        drop((survivor, application));
        node.stop(Message::Drain);

        // In one stream of a tunnel.
        let plans = Plans::new();
        let port = plans.application.local_addr().unwrap().port();
        let pair = plans.start(driver);
        let (mut survivor, mut application) = pair.open();
        exchange(&mut survivor, &mut application);
        faults::panic_on(port);
        let mut victim = pair.client.connect();
        assert!(is_reset(&mut victim), "{driver:?}");
        faults::panic_on(0);
        let panics = || pair.server.counters.panics.get() + pair.client.counters.panics.get();
        until("the panic to be counted", || panics() > 0);
        assert_eq!(panics(), 1, "{driver:?}");
        exchange(&mut survivor, &mut application);
        drop((survivor, application));
        pair.stop(|| Message::Drain);

        // In the dial of a tunnel: whoever waits for it is answered.
        let mut plans = Plans::new();
        let (silent, at) = server();
        plans.client.config.listeners.inbound = Some(at);
        faults::panic_on(at.port());
        let client = plans.client.start(driver);
        let mut waiting: Vec<_> = (0..5).map(|_| client.connect()).collect();
        assert!(waiting.iter_mut().all(is_reset), "{driver:?}");
        faults::panic_on(0);
        until("the panic to be counted", || {
            client.counters.panics.get() > 0
        });
        client.logged("internal error: the connection's task panicked");
        drop(silent);
        client.stop(Message::Drain);

        // In an accept loop: nobody would accept any more, so the shard ends, and says so.
        let mut node = Running::start(driver, addr, |_| {});
        faults::panic_on(node.addr().port());
        let connected = TcpStream::connect(node.addr());
        let error = node.ended().unwrap_err();
        assert_eq!(error.to_string(), "an accept loop panicked", "{driver:?}");
        faults::panic_on(0);
        drop(connected);
    }
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic_any("in drop");
    }
}

#[test]
fn a_panic_while_a_future_is_dropped_is_contained_too() {
    for driver in [DriverChoice::IoUring, DriverChoice::Epoll] {
        let told = rt::block_on(driver, 256, |_| async {
            let task = async {
                let holder = PanicsInDrop;
                let loses = async move {
                    let _holder = holder;
                    pending::<()>().await;
                };
                rt::race(loses, rt::sleep(std::time::Duration::ZERO)).await;
            };
            rt::contain(task).await == Err(Panicked)
        });
        assert!(told.unwrap(), "{driver:?}");
    }
}
