//! Two shards and a tunnel between them: HBONE over mutual TLS on loopback, both drivers.

use super::*;
use crate::model::identity::Identity;
use crate::model::policy::{Policy, PolicyAction, PolicyMatch, PolicyScope, StringMatch};
use crate::model::workload::WorkloadProtocol;
use crate::tls::TlsOptions;
use crate::tls::credentials::CredentialState;
use crate::tls::dev_pki::Authority as Pki;
use std::time::SystemTime;

/// A client node, a server node, and an application behind it.
struct Pair {
    client: Running,
    server: Running,
    application: TcpListener,
}

fn store(pki: &Pki, identity: &Identity) -> CredentialStore {
    let credentials = pki
        .credentials(identity, TlsOptions::default(), SystemTime::now())
        .unwrap();
    CredentialStore::new([(
        identity.clone(),
        CredentialState::Available(Arc::new(credentials)),
    )])
}

impl Pair {
    fn new(driver: DriverChoice, tune: impl Fn(&mut Config)) -> Self {
        let pki = Pki::new("test", SystemTime::now()).unwrap();
        let application = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = application.local_addr().unwrap();
        let mut backend = workload("server", Some(to));
        backend.protocol = WorkloadProtocol::Hbone;
        let change = || Change {
            workloads: vec![workload("client", None), backend.clone()],
            ..Change::default()
        };
        let mut node = Node {
            config: config(),
            change: change(),
            credentials: store(&pki, &backend.identity()),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            role: ListenerRole::Inbound,
        };
        tune(&mut node.config);
        let server = node.start(driver);
        let mut node = Node::forwarding(to);
        node.change = change();
        node.credentials = store(&pki, &workload("client", None).identity());
        node.config.listeners.inbound = Some(server.addr);
        tune(&mut node.config);
        let client = node.start(driver);
        Self {
            client,
            server,
            application,
        }
    }

    fn open(&self) -> (TcpStream, TcpStream) {
        let client = self.client.connect();
        let (server, _) = self.application.accept().unwrap();
        server
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        (client, server)
    }

    fn stop(self, message: fn() -> Message) {
        self.client.stop(message());
        self.server.stop(message());
    }
}

fn deny(source: &str) -> Change {
    let principal = format!("cluster.local/ns/default/sa/{source}");
    let policy = Policy {
        name: "deny".into(),
        namespace: "default".into(),
        scope: PolicyScope::Namespace,
        action: PolicyAction::Deny,
        rules: vec![vec![vec![PolicyMatch {
            principals: vec![StringMatch::Exact(principal.into())],
            ..PolicyMatch::default()
        }]]],
        dry_run: false,
    };
    Change {
        policies: vec![("default/deny".into(), policy)],
        ..Change::default()
    }
}

#[test]
fn bytes_and_half_closes_pass_through_a_tunnel() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |_| {});
        for seed in 0..3 {
            let (mut client, mut server) = pair.open();
            let (up, down) = (pattern(3_000_000, seed), pattern(5_000_000, seed + 10));
            let application = {
                let down = down.clone();
                std::thread::spawn(move || {
                    let mut received = Vec::new();
                    server.read_to_end(&mut received).unwrap();
                    server.write_all(&down).unwrap();
                    received
                })
            };
            client.write_all(&up).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut received = Vec::new();
            client.read_to_end(&mut received).unwrap();
            assert!(received == down, "{driver:?}: server to client");
            assert!(
                application.join().unwrap() == up,
                "{driver:?}: client to server"
            );
        }
        assert_eq!(pair.client.counters.tunnels_client_opened.get(), 1);
        assert_eq!(pair.client.counters.streams_client_opened.get(), 3);
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_reset_passes_through_a_tunnel_in_both_directions() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |_| {});
        for client_resets in [true, false] {
            let (mut client, mut server) = pair.open();
            client.write_all(b"up").unwrap();
            server.read_exact(&mut [0; 2]).unwrap();
            server.write_all(b"down").unwrap();
            client.read_exact(&mut [0; 4]).unwrap();
            let (gone, mut left) = if client_resets {
                (client, server)
            } else {
                (server, client)
            };
            crate::sys::socket::reset_on_close(gone.as_fd());
            drop(gone);
            let error = left.read(&mut [0; 1]).unwrap_err();
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "{driver:?}"
            );
        }
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_new_deny_policy_closes_the_open_stream_and_refuses_the_next() {
    for driver in DRIVERS {
        let mut pair = Pair::new(driver, |_| {});
        let (mut client, mut server) = pair.open();
        client.write_all(b"up").unwrap();
        server.read_exact(&mut [0; 2]).unwrap();
        pair.server.change(deny("somebody-else"));
        server.write_all(b"down").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        pair.server.change(deny("client"));
        assert!(
            client.read(&mut [0; 1]).is_err(),
            "{driver:?}: the open stream is reset"
        );
        let error = pair.client.connect().read(&mut [0; 1]).unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "{driver:?}"
        );
        assert_eq!(pair.server.counters.policy_closed.get(), 1);
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn many_connections_share_few_tunnels() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |config| config.pool.max_streams_per_connection = 10);
        let mut open: Vec<_> = (0..40).map(|_| pair.open()).collect();
        for (number, (client, server)) in open.iter_mut().enumerate() {
            let byte = [u8::try_from(number).unwrap()];
            client.write_all(&byte).unwrap();
            let mut seen = [0];
            server.read_exact(&mut seen).unwrap();
            assert_eq!(seen, byte);
        }
        assert_eq!(
            pair.client.counters.tunnels_client_opened.get(),
            4,
            "{driver:?}"
        );
        drop(open);
        pair.stop(|| Message::Drain);
    }
}
