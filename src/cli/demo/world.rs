//! The stage of the demo: two nodes, the application, and the ways between them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixListener};
use std::path::PathBuf;

use super::backend::Backend;
use super::error::DemoError;
use super::metrics;
use super::netns::Namespaces;
use super::node::{self, Node, NodePlan};
use super::place::Place;
use super::scratch::Scratch;
use super::setup::{self, Endpoints, Mesh, Who};
use super::watch::Watch;
use crate::config::{ADMIN_PORT, INBOUND_PORT, READINESS_PORT, STATS_PORT};

/// Pairs of loopback networks tried: 127.0.1.1 with 127.0.2.1, then 127.0.3.1 with 127.0.4.1, …
const PAIRS: u8 = 8;
/// Starts tried when a port is taken between looking and binding.
const STARTS: usize = 3;

/// Everything that runs. Fields are dropped in this order: nodes before what they use.
#[derive(Debug)]
pub(super) struct World {
    /// Node of the clients.
    pub(super) a: Node,
    /// Node of the server.
    pub(super) b: Node,
    pub(super) backend: Backend,
    /// Where the clients are.
    pub(super) clients: Place,
    /// Address that reaches the server through the mesh, for each client.
    pub(super) tunnel: Tunnel,
    /// Address that reaches the server directly.
    pub(super) direct: SocketAddr,
    /// Client bytes (sent, received) that an earlier process of node A has counted.
    pub(super) earlier: (u64, u64),
    pub(super) namespaces: Option<Namespaces>,
    /// Held, not used: see [`claim`].
    pub(super) _claim: Option<UnixListener>,
}

/// How clients enter the mesh.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tunnel {
    /// Explicit listeners of node A, one for each client.
    Forwards {
        web_client: SocketAddr,
        intruder: SocketAddr,
    },
    /// The service's own address; the kernel captures the connection.
    Capture { service: SocketAddr },
}

impl World {
    /// Starts everything on loopback addresses of this host.
    pub(super) fn on_loopback(
        scratch: &Scratch,
        program: &std::path::Path,
        watch: &Watch,
    ) -> Result<Self, DemoError> {
        let mut tries = 1;
        loop {
            let layout = Layout::find()?;
            match Self::with_layout(layout, scratch, program, watch) {
                Err(error) if tries < STARTS && port_was_taken(scratch) => {
                    tries += 1;
                    drop(error);
                }
                done => return done,
            }
        }
    }

    fn with_layout(
        layout: Layout,
        scratch: &Scratch,
        program: &std::path::Path,
        watch: &Watch,
    ) -> Result<Self, DemoError> {
        let listen = DemoError::io("start the demo's HTTP server");
        let listener = TcpListener::bind(SocketAddr::new(layout.b.into(), 0)).map_err(listen)?;
        let backend = Backend::start(listener, None)
            .map_err(DemoError::io("start the demo's HTTP server"))?;
        let server = backend.address();
        let mesh = Mesh {
            web_client: beside(layout.a, 10),
            intruder: beside(layout.a, 11),
            server,
            vip: beside(layout.b, 80),
        };
        let write = |name: &str, text: &str| {
            scratch
                .write(name, text)
                .map_err(DemoError::io(format!("write {name}")))
        };
        write(setup::STATE_FILE, &setup::state(&mesh))?;
        let forwards = [
            (layout.web_client, Who::WebClient),
            (layout.intruder, Who::Intruder),
        ];
        let inbound = SocketAddr::new(layout.b.into(), INBOUND_PORT);
        let plan = |name, file: &str, endpoints: &Endpoints, inbound, forwards: &[_]| {
            let text = setup::configuration(scratch.path(), file, endpoints, inbound, forwards);
            let config = write(&format!("{file}.yaml"), &text)?;
            let arguments = vec!["--config".to_owned(), config.display().to_string()];
            Ok::<_, DemoError>(NodePlan {
                name,
                place: Place::Host,
                program: program.to_owned(),
                arguments,
                environment: BTreeMap::new(),
                folder: scratch.path().to_owned(),
                log: scratch.path().join(format!("{file}.log")),
                endpoints: *endpoints,
            })
        };
        let b = plan("node B", "node-b", &layout.b_endpoints, Some(inbound), &[])?;
        let a = plan("node A", "node-a", &layout.a_endpoints, None, &forwards)?;
        let b = Node::start(b, watch)?;
        let a = Node::start(a, watch)?;
        Ok(Self {
            a,
            b,
            direct: server,
            backend,
            clients: Place::Host,
            tunnel: Tunnel::Forwards {
                web_client: layout.web_client,
                intruder: layout.intruder,
            },
            earlier: (0, 0),
            namespaces: None,
            _claim: Some(layout.claim),
        })
    }

    /// Makes node A speak for that client. On loopback it speaks for both already; a node that
    /// captures speaks for one workload, so another one takes its place.
    pub(super) fn speak_as(&mut self, who: Who, watch: &Watch) -> Result<(), DemoError> {
        let Some(namespaces) = &self.namespaces else {
            return Ok(());
        };
        let page = self.a.metrics(watch)?;
        let (sent, received) = client_bytes(&page, "source");
        self.earlier = (self.earlier.0 + sent, self.earlier.1 + received);
        self.a.end(watch)?;
        let plan = namespaces.become_client(who, &self.a.plan)?;
        self.a = Node::start(plan, watch)?;
        Ok(())
    }

    /// Address at which that client enters the mesh.
    pub(super) const fn entrance(&self, who: Who) -> SocketAddr {
        match self.tunnel {
            Tunnel::Forwards { intruder, .. } if matches!(who, Who::Intruder) => intruder,
            Tunnel::Forwards { web_client, .. } => web_client,
            Tunnel::Capture { service } => service,
        }
    }

    /// Connects through the mesh.
    pub(super) fn connect(&self, who: Who) -> io::Result<TcpStream> {
        self.clients.connect(self.entrance(who))
    }

    /// Connects to the application, past both nodes.
    pub(super) fn connect_directly(&self) -> io::Result<TcpStream> {
        self.clients.connect(self.direct)
    }

    /// Ends everything in order; the first failure is told, the rest is ended all the same.
    pub(super) fn stop(mut self, watch: &Watch) -> Result<(), DemoError> {
        self.a.ask_to_stop();
        self.b.ask_to_stop();
        let a = self.a.end(watch);
        let b = self.b.end(watch);
        drop(self.backend);
        let namespaces = self.namespaces.take().map_or(Ok(()), Namespaces::remove);
        a.and(b).and(namespaces)
    }
}

/// Bytes (sent, received) by the allowed client, as a node's metrics have them. Families and labels
/// are named from the server's side: what it received is what the client sent.
pub(super) fn client_bytes(page: &str, reporter: &str) -> (u64, u64) {
    let identity = Who::WebClient.identity().to_string();
    let labels = [
        ("reporter", reporter),
        ("source_principal", identity.as_str()),
    ];
    (
        metrics::sum(page, "istio_tcp_received_bytes_total", &labels),
        metrics::sum(page, "istio_tcp_sent_bytes_total", &labels),
    )
}

fn beside(ip: Ipv4Addr, last: u8) -> IpAddr {
    let [a, b, c, _] = ip.octets();
    Ipv4Addr::new(a, b, c, last).into()
}

/// Whether a node has complained that somebody else holds its port.
fn port_was_taken(scratch: &Scratch) -> bool {
    let lines = scratch
        .logs()
        .into_iter()
        .flat_map(|log: PathBuf| node::last_lines(&log));
    lines.into_iter().any(|line| line.contains("in use"))
}

/// Keeps other demos away from a pair of addresses while the result lives. Without it two of them
/// that start together could take each other's nodes for their own. The name is in no file system
/// and goes with the process (unix(7), abstract sockets).
fn claim(a: Ipv4Addr) -> io::Result<UnixListener> {
    let name = unix::SocketAddr::from_abstract_name(format!("corelane-demo-{a}"))?;
    UnixListener::bind_addr(&name)
}

/// Addresses on which nobody listens.
#[derive(Debug)]
struct Layout {
    claim: UnixListener,
    a: Ipv4Addr,
    b: Ipv4Addr,
    a_endpoints: Endpoints,
    b_endpoints: Endpoints,
    web_client: SocketAddr,
    intruder: SocketAddr,
}

impl Layout {
    fn find() -> Result<Self, DemoError> {
        for pair in 0..PAIRS {
            let a = Ipv4Addr::new(127, 0, 2 * pair + 1, 1);
            let b = Ipv4Addr::new(127, 0, 2 * pair + 2, 1);
            let Ok(claim) = claim(a) else {
                continue;
            };
            if TcpListener::bind((b, INBOUND_PORT)).is_ok() {
                return Self::on(a, b, claim).map_err(DemoError::io("find free ports"));
            }
        }
        Err(DemoError::PortTaken { port: INBOUND_PORT })
    }

    fn on(a: Ipv4Addr, b: Ipv4Addr, claim: UnixListener) -> io::Result<Self> {
        // All are held until all are found, so that none is found twice.
        let mut held = Vec::new();
        let mut free = |ip: Ipv4Addr, preferred: u16| {
            let listener =
                TcpListener::bind((ip, preferred)).or_else(|_| TcpListener::bind((ip, 0)))?;
            let address = listener.local_addr()?;
            held.push(listener);
            Ok::<_, io::Error>(address)
        };
        let mut endpoints = |ip| {
            Ok::<_, io::Error>(Endpoints {
                admin: free(ip, ADMIN_PORT)?,
                stats: free(ip, STATS_PORT)?,
                readiness: free(ip, READINESS_PORT)?,
            })
        };
        let (a_endpoints, b_endpoints) = (endpoints(a)?, endpoints(b)?);
        let (web_client, intruder) = (free(a, 8001)?, free(a, 8002)?);
        Ok(Self {
            claim,
            a,
            b,
            a_endpoints,
            b_endpoints,
            web_client,
            intruder,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_avoided_and_none_is_given_twice() {
        let a = Ipv4Addr::new(127, 0, 91, 1);
        let taken = TcpListener::bind((a, 0)).unwrap();
        let layout = Layout::on(a, Ipv4Addr::new(127, 0, 92, 1), claim(a).unwrap()).unwrap();
        let Endpoints {
            admin,
            stats,
            readiness,
        } = layout.a_endpoints;
        let mut all = vec![admin, stats, readiness, layout.web_client, layout.intruder];
        all.push(taken.local_addr().unwrap());
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_pair_of_addresses_belongs_to_one_demo_at_a_time() {
        let a = Ipv4Addr::new(127, 0, 93, 1);
        let first = claim(a).unwrap();
        assert!(claim(a).is_err());
        drop(first);
        assert!(claim(a).is_ok());
    }

    #[test]
    fn only_the_allowed_clients_bytes_count() {
        let page = "istio_tcp_received_bytes_total{reporter=\"source\",\
            source_principal=\"spiffe://cluster.local/ns/default/sa/web-client\"} 5\n\
            istio_tcp_received_bytes_total{reporter=\"source\",\
            source_principal=\"spiffe://cluster.local/ns/default/sa/intruder\"} 9\n\
            istio_tcp_sent_bytes_total{reporter=\"destination\",\
            source_principal=\"spiffe://cluster.local/ns/default/sa/web-client\"} 7\n";
        assert_eq!(client_bytes(page, "source"), (5, 0));
        assert_eq!(client_bytes(page, "destination"), (0, 7));
    }
}
