//! Names on a node: the DNS proxy, bound with the listeners, served beside the shards and drained with
//! them; and the hostnames that shards ask for.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::lifecycle::StartError;
use super::state::State;
use crate::config::limits::{HOSTNAME_WAITERS_MAX, RESOLV_CONF_BYTES_MAX};
use crate::config::raw::read_bounded;
use crate::config::{Config, NodeMode};
use crate::control::dns::hostnames::{Hostnames, count};
use crate::control::dns::{
    BindOptions, Client, NameServers, Places, Proxy, Search, Settings, bind, serve_tcp, serve_udp,
};
use crate::control::readiness::{Readiness, Task};
use crate::dataplane::hostnames::{NameKind, Question, Questions};
use crate::dataplane::shard::{Message, ShardMailbox};
use crate::model::local::LocalWorkloads;
use crate::snapshot::exchange::Subscription;
use crate::snapshot::{Generation, Snapshot};
use pods::PodNames;

pub(super) mod pods;

/// What is bound and not yet served.
#[derive(Debug)]
pub(crate) struct Dns {
    proxy: Option<Bound>,
    questions: Questions,
    asked: mpsc::Receiver<Question>,
}

/// Bound sockets of the proxy, and whom it asks.
#[derive(Debug)]
struct Bound {
    sockets: Vec<(UdpSocket, TcpListener)>,
    name_servers: NameServers,
    task: Task,
}

/// What is served.
#[derive(Debug)]
pub(crate) struct Serving {
    servers: JoinSet<()>,
    published: watch::Sender<Generation>,
    /// Subscribed to by all that answer for workloads in their namespaces.
    answering: watch::Sender<()>,
}

impl Dns {
    /// Binds the proxy's sockets, if it is on; then the node is not ready before it serves.
    pub(crate) fn bind(config: &Config, readiness: &Readiness) -> Result<Self, StartError> {
        let (questions, asked) = mpsc::channel(HOSTNAME_WAITERS_MAX);
        // A shared node answers in the namespaces of its workloads only.
        let on = !config.listeners.dns.is_empty() && config.mode.shared().is_none();
        let proxy = on.then(|| bind_proxy(config, readiness.task("dns proxy")));
        Ok(Self {
            proxy: proxy.transpose()?,
            questions,
            asked,
        })
    }

    /// For shards.
    pub(crate) fn questions(&self) -> Questions {
        self.questions.clone()
    }

    /// Serves until `stop` turns true. Must run within a `LocalSet`.
    pub(crate) fn start(
        self,
        config: &Arc<Config>,
        state: &State,
        shards: Vec<ShardMailbox>,
        stop: &watch::Receiver<bool>,
    ) -> Result<(Serving, Option<PodNames>), StartError> {
        let naming = Naming::new(config, state);
        tokio::task::spawn_local(naming.answer(self.asked, shards));
        let (published, changes) = watch::channel(state.current().generation());
        let mut servers = JoinSet::new();
        if let Some(Bound {
            sockets,
            name_servers,
            task,
        }) = self.proxy
        {
            let settings = settings(config, name_servers.search());
            let proxy = Proxy::new(settings, state.subscribe(), changes, &name_servers)
                .map_err(|error| StartError::NameServers(error.to_string()))?;
            let proxy = Arc::new(proxy);
            for (udp, tcp) in sockets {
                servers.spawn(serve_udp(udp, Arc::clone(&proxy), stop.clone()));
                servers.spawn(serve_tcp(tcp, Arc::clone(&proxy), stop.clone()));
            }
            task.done(Instant::now());
        }
        let answering = watch::channel(()).0;
        let shared = config.mode.shared().is_some() && !config.listeners.dns.is_empty();
        let pods = shared.then(|| {
            Ok::<_, StartError>(PodNames {
                settings: settings(config, Arc::default()),
                name_servers: name_servers(config).map_err(StartError::NameServers)?,
                state: state.subscribe(),
                published: published.clone(),
                stop: stop.clone(),
                answering: answering.clone(),
            })
        });
        let serving = Serving {
            servers,
            published,
            answering,
        };
        Ok((serving, pods.transpose()?))
    }
}

impl Serving {
    /// To be told the number of each snapshot that is published.
    pub(crate) fn published(&self) -> watch::Sender<Generation> {
        self.published.clone()
    }

    /// Waits until what was being answered when the node stopped is answered.
    pub(crate) async fn ended(&mut self) {
        while self.servers.join_next().await.is_some() {}
        self.answering.closed().await;
    }
}

/// The name servers of the host.
fn name_servers(config: &Config) -> Result<NameServers, String> {
    let path = &config.dns.resolv_conf;
    let text = read_bounded(path, RESOLV_CONF_BYTES_MAX).map_err(|error| error.to_string());
    let servers = text.and_then(|text| NameServers::parse(&text).map_err(|e| e.to_string()));
    servers.map_err(|error| format!("{}: {error}", path.display()))
}

fn bind_proxy(config: &Config, task: Task) -> Result<Bound, StartError> {
    let name_servers = name_servers(config).map_err(StartError::NameServers)?;
    let mut sockets = Vec::new();
    for addr in &config.listeners.dns {
        let (what, addr) = ("dns proxy", *addr);
        let bound = bind(addr, BindOptions::default());
        let bound = bound.map_err(|source| StartError::Endpoint { what, addr, source })?;
        let addr: SocketAddr = bound.1.local_addr().unwrap_or(addr);
        tracing::info!(target: "corelane::app", address = %addr, component = what, "listener established");
        sockets.push(bound);
    }
    Ok(Bound {
        sockets,
        name_servers,
        task,
    })
}

/// Answers what shards ask about names.
struct Naming {
    settings: Settings,
    state: Subscription<Snapshot>,
    /// What name servers know. Only some meshes and clients need it, so that its lack is no reason not to
    /// start.
    hostnames: Result<Rc<Hostnames>, String>,
}

impl Naming {
    fn new(config: &Config, state: &State) -> Self {
        let (mark, ipv6) = (config.socket.packet_mark, config.ipv6_enabled);
        let servers = name_servers(config);
        let search = servers.as_ref().map(NameServers::search);
        let settings = settings(config, search.unwrap_or_default());
        let hostnames = servers
            .and_then(|servers| Hostnames::new(&servers, mark, ipv6).map_err(|e| e.to_string()));
        Self {
            settings,
            state: state.subscribe(),
            hostnames: hostnames.map(Rc::new),
        }
    }

    /// For ever.
    async fn answer(self, mut questions: mpsc::Receiver<Question>, shards: Vec<ShardMailbox>) {
        let mut warned = false;
        let mut answers = JoinSet::new();
        loop {
            let question = tokio::select! {
                question = questions.recv() => question,
                Some(_) = answers.join_next() => continue,
            };
            let Some(question) = question else {
                return;
            };
            let Question { ticket, host, .. } = &question;
            let (ticket, mailbox) = (*ticket, shards[question.shard].clone());
            if let Some(answer) = self.in_mesh(&question) {
                let _ended = mailbox.send(Message::Resolved(ticket, Some(answer)));
                continue;
            }
            match &self.hostnames {
                Ok(hostnames) => {
                    let (hostnames, host) = (Rc::clone(hostnames), Arc::clone(host));
                    answers.spawn_local(async move {
                        let answer = hostnames.resolve(&host).await.ok();
                        let _ended = mailbox.send(Message::Resolved(ticket, answer));
                    });
                }
                Err(error) => {
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(target: "corelane::dns", %host, %error, "no hostname can be resolved");
                    }
                    let _ended = mailbox.send(Message::Resolved(ticket, None));
                }
            }
        }
    }

    /// What the mesh itself knows of a name.
    fn in_mesh(&self, question: &Question) -> Option<Arc<[IpAddr]>> {
        let Question { host, source, .. } = question;
        match question.kind {
            NameKind::Workload => {
                count(source, host);
                None
            }
            NameKind::Destination => {
                let found = self.settings.in_mesh(host, source, &self.state.load());
                found.map(Into::into)
            }
        }
    }
}

/// `search` are the domains of the host's stub resolver.
fn settings(config: &Config, search: Arc<[Arc<str>]>) -> Settings {
    Settings {
        client: match &config.mode {
            NodeMode::Dedicated { workload } => Client::Workload(workload.clone()),
            NodeMode::Node(node) => Client::BySource(node.workloads.clone()),
            // Replaced for each workload.
            NodeMode::Shared(_) => Client::BySource(LocalWorkloads::default()),
        },
        search: match &config.mode {
            NodeMode::Dedicated { .. } | NodeMode::Node(_) => Search::Listed(search),
            NodeMode::Shared(_) => Search::OfNamespace,
        },
        cluster_domain: config.cluster_domain.to_ascii_lowercase().into(),
        preferred_namespace: config.dns.preferred_service_namespace.clone(),
        network: Arc::clone(&config.network),
        ipv6: config.ipv6_enabled,
        workload_wait: config.timeouts.workload_wait,
        packet_mark: config.socket.packet_mark,
        namespace: None,
        of_node: Places::default(),
    }
}
