//! `--netns`: two network namespaces joined by a cable, with connections captured by nftables.
//!
//! Nothing of it touches the host's own network: addresses, routes and rules live in namespaces
//! that are removed at the end.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use super::backend::Backend;
use super::error::DemoError;
use super::node::{Node, NodePlan};
use super::place::Place;
use super::scratch::Scratch;
use super::setup::{self, Endpoints, Mesh, SERVICE_PORT, Who};
use super::watch::Watch;
use super::world::{Tunnel, World};
use crate::config::{
    ADMIN_PORT, INBOUND_PLAINTEXT_PORT, INBOUND_PORT, OUTBOUND_PORT, READINESS_PORT, STATS_PORT,
};

const WEB_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const INTRUDER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 20);
/// Address of the service; no interface has it.
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 80);
const PREFIX: u8 = 24;
/// Where the application listens.
const SERVER_PORT: u16 = 8080;
/// Where it listens for direct connections, which the rules leave alone.
const DIRECT_PORT: u16 = 8081;
/// Mark of the nodes' own packets (`PACKET_MARK`), so that they are not captured again.
const MARK: u32 = 1337;
/// Name of the cable's end in either namespace.
const CABLE: &str = "eth0";

/// The two namespaces. Dropping them removes them.
#[derive(Debug)]
pub(super) struct Namespaces {
    names: [String; 2],
    removed: bool,
}

/// Starts everything in namespaces of its own.
pub(super) fn world(scratch: &Scratch, program: &Path, watch: &Watch) -> Result<World, DemoError> {
    let namespaces = Namespaces::make()?;
    let enter = |name: &str| {
        Place::namespace(name).map_err(DemoError::io(format!("open the namespace {name}")))
    };
    let (clients, servers) = (enter(&namespaces.names[0])?, enter(&namespaces.names[1])?);
    for place in [&clients, &servers] {
        choose_congestion_control(place)?;
    }
    let listen = |port| {
        let address = SocketAddr::new(SERVER.into(), port);
        servers
            .listen(address)
            .map_err(DemoError::io(format!("listen on {address}")))
    };
    let backend = Backend::start(listen(SERVER_PORT)?, Some(listen(DIRECT_PORT)?))
        .map_err(DemoError::io("start the demo's HTTP server"))?;
    let mesh = Mesh {
        web_client: WEB_CLIENT.into(),
        intruder: INTRUDER.into(),
        server: backend.address(),
        vip: VIP.into(),
    };
    scratch
        .write(setup::STATE_FILE, &setup::state(&mesh))
        .map_err(DemoError::io("write the state file"))?;
    let plan = |name, place: &Place, who, ip| plan(name, place, who, ip, scratch, program);
    let b = Node::start(plan("node B", &servers, Who::Server, SERVER), watch)?;
    let a = Node::start(plan("node A", &clients, Who::WebClient, WEB_CLIENT), watch)?;
    Ok(World {
        a,
        b,
        backend,
        clients,
        tunnel: Tunnel::Capture {
            service: SocketAddr::new(VIP.into(), SERVICE_PORT),
        },
        direct: SocketAddr::new(SERVER.into(), DIRECT_PORT),
        earlier: (0, 0),
        namespaces: Some(namespaces),
        _claim: None,
    })
}

/// Some hosts default to BBR, which stalls on a cable that is no real one. A namespace may choose
/// only among what the host allows, of which Reno is always one.
fn choose_congestion_control(place: &Place) -> Result<(), DemoError> {
    let set = |name| std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", name);
    place
        .enter(|| set("cubic").or_else(|_| set("reno")))
        .map_err(DemoError::io("choose the congestion control cubic or reno"))
}

/// A dedicated node, configured by the environment alone.
fn plan(
    name: &'static str,
    place: &Place,
    who: Who,
    ip: Ipv4Addr,
    scratch: &Scratch,
    program: &Path,
) -> NodePlan {
    let folder = scratch.path();
    let path = |name: &str| folder.join(name).display().to_string();
    let local = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let reachable = |port| SocketAddr::new(IpAddr::from(ip), port);
    NodePlan {
        name,
        place: place.clone(),
        program: program.to_owned(),
        arguments: Vec::new(),
        environment: BTreeMap::from([
            ("PROXY_MODE", "dedicated".to_owned()),
            ("PROXY_WORKLOAD_INFO", workload_info(who)),
            ("NODE_NAME", who.node().to_owned()),
            ("XDS_ADDRESS", String::new()),
            ("LOCAL_XDS_PATH", path(setup::STATE_FILE)),
            ("CORELANE_IDENTITY_DIR", path(setup::IDENTITY_FOLDER)),
            ("PACKET_MARK", MARK.to_string()),
            // Seeing the client's address would need a policy route besides the capture rules.
            ("ENABLE_ORIG_SRC", "false".to_owned()),
            ("ZTUNNEL_WORKER_THREADS", "2".to_owned()),
            ("CORELANE_PIN", "false".to_owned()),
            ("CORELANE_RING_ENTRIES", "256".to_owned()),
            ("RUST_LOG", setup::LOG_FILTER.to_owned()),
        ]),
        folder: folder.to_owned(),
        log: folder.join(format!("{}.log", who.node())),
        endpoints: Endpoints {
            admin: local(ADMIN_PORT),
            stats: reachable(STATS_PORT),
            readiness: reachable(READINESS_PORT),
        },
    }
}

fn workload_info(who: Who) -> String {
    format!("default/{0}/{0}", who.name())
}

impl Namespaces {
    fn make() -> Result<Self, DemoError> {
        if !rustix::process::geteuid().is_root() {
            return Err(DemoError::NotRoot);
        }
        let pid = std::process::id();
        let made = Self {
            names: [
                format!("corelane-demo-{pid}-a"),
                format!("corelane-demo-{pid}-b"),
            ],
            removed: false,
        };
        let [a, b] = &made.names;
        let mut script = String::new();
        for name in [a, b] {
            ip(&["netns", "add", name])?;
        }
        ip(&[
            "link", "add", CABLE, "netns", a, "type", "veth", "peer", "name", CABLE, "netns", b,
        ])?;
        for (name, address) in [(a, WEB_CLIENT), (b, SERVER)] {
            script.clear();
            script += &format!("link set lo up\nlink set {CABLE} up\n");
            script += &format!("addr add {address}/{PREFIX} dev {CABLE}\n");
            script += &format!("route add default dev {CABLE}\n");
            feed(
                Command::new("ip").args(["-n", name, "-batch", "-"]),
                &script,
            )?;
            let rules = capture_rules();
            feed(
                Command::new("ip").args(["netns", "exec", name, "nft", "-f", "-"]),
                &rules,
            )?;
        }
        Ok(made)
    }

    /// Gives the client's namespace another client's address, and plans the node that speaks for it.
    pub(super) fn become_client(&self, who: Who, plan: &NodePlan) -> Result<NodePlan, DemoError> {
        let address = match who {
            Who::Intruder => INTRUDER,
            Who::WebClient | Who::Server => WEB_CLIENT,
        };
        let script = format!(
            "addr flush dev {CABLE}\naddr add {address}/{PREFIX} dev {CABLE}\n\
             route replace default dev {CABLE}\n"
        );
        feed(
            Command::new("ip").args(["-n", &self.names[0], "-batch", "-"]),
            &script,
        )?;
        let mut plan = plan.clone();
        plan.environment
            .insert("PROXY_WORKLOAD_INFO", workload_info(who));
        plan.endpoints.stats.set_ip(address.into());
        plan.endpoints.readiness.set_ip(address.into());
        Ok(plan)
    }

    /// What to put before a command so that it runs beside node A, or beside node B.
    pub(super) fn prefixes(&self) -> [String; 2] {
        self.names
            .each_ref()
            .map(|name| format!("ip netns exec {name} "))
    }

    /// Removes both; the cable goes with them.
    pub(super) fn remove(mut self) -> Result<(), DemoError> {
        self.delete()
    }

    fn delete(&mut self) -> Result<(), DemoError> {
        if self.removed {
            return Ok(());
        }
        self.removed = true;
        let [a, b] = &self.names;
        let first = ip(&["netns", "delete", a]);
        ip(&["netns", "delete", b]).and(first)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Whoever drops them without `remove` is already reporting a failure.
        let _ = self.delete();
    }
}

/// The capture rules of a host: outbound connections to 15001, inbound ones to 15006, except the
/// node's own, loopback, HBONE, what operators ask, and the direct way to the application.
fn capture_rules() -> String {
    format!(
        "table inet corelane {{
    chain outbound {{
        type nat hook output priority -100; policy accept;
        meta mark {MARK} return
        oifname \"lo\" return
        tcp dport {DIRECT_PORT} return
        meta l4proto tcp redirect to :{OUTBOUND_PORT}
    }}
    chain inbound {{
        type nat hook prerouting priority -100; policy accept;
        iifname \"lo\" return
        tcp dport {{ {INBOUND_PORT}, {STATS_PORT}, {READINESS_PORT}, {DIRECT_PORT} }} return
        meta l4proto tcp redirect to :{INBOUND_PLAINTEXT_PORT}
    }}
}}
"
    )
}

fn ip(arguments: &[&str]) -> Result<(), DemoError> {
    feed(Command::new("ip").args(arguments), "")
}

/// Runs a tool of the system with that input.
fn feed(command: &mut Command, input: &str) -> Result<(), DemoError> {
    let shown = format!("{command:?}").replace('"', "");
    let failed = |why: String| DemoError::Tool {
        command: shown.clone(),
        why,
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("{error}; is it installed?")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that has read enough to fail says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(failed(format!("{} ({})", said.trim(), output.status)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_fails_is_named_with_its_words() {
        let error = feed(Command::new("cat").arg("/nonexistent/x"), "").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("`cat /nonexistent/x` failed: "), "{text}");
        assert!(text.contains("No such file"), "{text}");
        let missing = feed(&mut Command::new("/nonexistent/tool"), "").unwrap_err();
        assert!(missing.to_string().contains("is it installed?"));
    }

    #[test]
    fn the_nodes_own_packets_are_never_captured() {
        let rules = capture_rules();
        let exempt = rules.find("meta mark 1337 return").unwrap();
        assert!(exempt < rules.find("redirect to :15001").unwrap());
        assert!(rules.contains("redirect to :15006"));
    }
}
