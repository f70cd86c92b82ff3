//! The DNS proxies of a shared node: one for each workload, in its network namespace (spec: zds.md 4.1).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::config::raw::read_bounded;
use crate::control::dns::{
    BindOptions, Client, NameServers, Proxy, Settings, bind, serve_tcp, serve_udp,
};
use crate::model::workload::WorkloadInfo;
use crate::snapshot::exchange::Subscription;
use crate::snapshot::{Generation, Snapshot};
use crate::sys::netns::Namespace;

/// Says `1` where loopback has no IPv6; as the calling thread's network namespace has it.
const LOOPBACK_WITHOUT_IPV6: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
/// Its size and more.
const SWITCH_BYTES_MAX: usize = 16;

/// Makes the proxies of workloads.
#[derive(Debug)]
pub(in crate::app) struct PodNames {
    pub(super) settings: Settings,
    pub(super) name_servers: NameServers,
    pub(super) state: Subscription<Snapshot>,
    pub(super) published: watch::Sender<Generation>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) answering: watch::Sender<()>,
}

/// Bound in a workload's namespace, not served yet.
pub(in crate::app) type Bound = Vec<(UdpSocket, TcpListener)>;

/// Binds all addresses of a workload's proxy; to be called inside its namespace. Those of an IPv6
/// loopback that does not exist are left out.
///
/// # Errors
/// Which one cannot be bound, and why.
pub(in crate::app) fn bind_all(config: &Config, reuse_port: bool) -> Result<Bound, String> {
    let options = BindOptions {
        mark: config.socket.packet_mark,
        reuse_port,
    };
    let switch = read_bounded(Path::new(LOOPBACK_WITHOUT_IPV6), SWITCH_BYTES_MAX);
    let without_ipv6 = switch.is_ok_and(|switch| switch.trim() == "1");
    let exists = |addr: &&SocketAddr| !(without_ipv6 && addr.is_ipv6() && addr.ip().is_loopback());
    let wanted = config.listeners.dns.iter().filter(exists);
    wanted
        .map(|addr| {
            bind(*addr, options)
                .map_err(|error| format!("failed to bind to address {addr} (dns proxy): {error}"))
        })
        .collect()
}

/// The proxy of a workload. Dropped, it ends at once, or, when the node stops, once it has answered what it
/// was asked.
#[derive(Debug)]
pub(in crate::app) struct Answering {
    servers: JoinSet<()>,
    stop: watch::Receiver<bool>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        if *self.stop.borrow() {
            self.servers.detach_all();
        }
    }
}

impl PodNames {
    /// Answers for a workload. `presence` goes with the last task.
    ///
    /// # Errors
    /// When the resolver refuses its settings.
    pub(in crate::app) fn serve<P: Clone + Send + 'static>(
        &self,
        info: &WorkloadInfo,
        namespace: &Arc<Namespace>,
        bound: Bound,
        presence: &P,
    ) -> Result<Answering, String> {
        let settings = Settings {
            client: Client::Workload(info.clone()),
            namespace: Some(Arc::clone(namespace)),
            ..self.settings.clone()
        };
        let published = self.published.subscribe();
        let proxy = Proxy::new(settings, self.state.clone(), published, &self.name_servers);
        let proxy = Arc::new(proxy.map_err(|error| error.to_string())?);
        let mut servers = JoinSet::new();
        for (udp, tcp) in bound {
            let held = || (presence.clone(), self.answering.subscribe());
            let (for_udp, for_tcp) = (held(), held());
            let udp = serve_udp(udp, Arc::clone(&proxy), self.stop.clone());
            let tcp = serve_tcp(tcp, Arc::clone(&proxy), self.stop.clone());
            servers.spawn(async move {
                udp.await;
                drop(for_udp);
            });
            servers.spawn(async move {
                tcp.await;
                drop(for_tcp);
            });
        }
        Ok(Answering {
            servers,
            stop: self.stop.clone(),
        })
    }
}
