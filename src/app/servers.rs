//! The HTTP endpoints for operators: admin, metrics, readiness. Bound early, served late.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::lifecycle::StartError;
use super::shards::Watchdog;
use crate::config::Config;
use crate::control::admin::status::StatusSources;
use crate::control::admin::{AdminHandler, AdminSources, Section};
use crate::control::dump;
use crate::control::exposition::{CertificateLife, ExpositionHandler, ExpositionSources};
use crate::control::http::{self, Handler, ServerOptions};
use crate::control::local_state::LocalState;
use crate::control::logging::Logging;
use crate::control::readiness::{Readiness, ReadinessHandler};
use crate::control::zds::view::View;
use crate::dataplane::shard::ShardMailbox;
use crate::snapshot::Snapshot;
use crate::snapshot::exchange::Subscription;
use crate::telemetry::Hub;
use crate::tls::credentials::{CredentialState, CredentialStore};

/// What the endpoints show.
pub(crate) struct Sources {
    pub(crate) config: Arc<Config>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) recorder: metrics_exporter_prometheus::PrometheusHandle,
    pub(crate) logging: Logging,
    pub(crate) readiness: Readiness,
    pub(crate) state: Subscription<Snapshot>,
    pub(crate) credentials: Subscription<CredentialStore>,
    pub(crate) watchdog: Watchdog,
    /// Those of a shared node.
    pub(crate) workloads: Option<View>,
    /// Asked for their open connections.
    pub(crate) shards: Vec<ShardMailbox>,
    pub(crate) quit: Box<dyn Fn() + Send + Sync>,
}

/// Bound sockets of the endpoints.
#[derive(Debug)]
pub(crate) struct Bound {
    admin: Vec<TcpListener>,
    stats: Option<TcpListener>,
    readiness: Option<TcpListener>,
}

/// Binds all endpoints.
pub(crate) fn bind(config: &Config) -> Result<Bound, StartError> {
    let one = |what: &'static str, addr: SocketAddr| {
        let listener =
            http::bind(addr).map_err(|source| StartError::Endpoint { what, addr, source })?;
        let addr = listener.local_addr().unwrap_or(addr);
        tracing::info!(target: "corelane::app", address = %addr, component = what, "listener established");
        Ok::<_, StartError>(listener)
    };
    let listeners = &config.listeners;
    Ok(Bound {
        admin: listeners
            .admin
            .iter()
            .map(|addr| one("admin", *addr))
            .collect::<Result<_, _>>()?,
        stats: listeners.stats.map(|addr| one("stats", addr)).transpose()?,
        readiness: listeners
            .readiness
            .map(|addr| one("readiness", addr))
            .transpose()?,
    })
}

/// Serves all endpoints until `stop` turns true.
pub(crate) fn serve(
    bound: Bound,
    sources: Sources,
    stop: &watch::Receiver<bool>,
) -> impl Future<Output = ()> + use<> {
    let mut servers = JoinSet::new();
    let mut start = |listener, handler: Arc<dyn Handler>, name| {
        let options = ServerOptions::new(name);
        servers.spawn(http::serve(listener, handler, options, stop.clone()));
    };
    let Sources {
        config,
        hub,
        recorder,
        logging,
        readiness,
        state,
        credentials,
        watchdog,
        workloads,
        shards,
        quit,
    } = sources;
    let probed = watchdog.clone();
    let probe = move || -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let watchdog = probed.clone();
        Box::pin(async move { while !watchdog.alive_within(Duration::from_secs(1)).await {} })
    };
    if let Some(listener) = bound.readiness {
        let handler = ReadinessHandler::new(readiness.clone(), Box::new(probe));
        start(listener, Arc::new(handler), "readiness");
    }
    if let Some(listener) = bound.stats {
        let handler = ExpositionHandler::new(ExpositionSources {
            hub: Arc::clone(&hub),
            recorder,
            mesh_version: Arc::clone(&config.istio_version),
            certificates: Box::new(lives(credentials.clone())),
        });
        start(listener, Arc::new(handler), "stats");
    }
    let status_state = state.clone();
    let admin: Arc<dyn Handler> = Arc::new(AdminHandler::new(AdminSources {
        logging,
        sections: sections(&config, state, credentials.clone()),
        live: live(workloads, shards),
        mesh_version: Arc::clone(&config.istio_version),
        status: StatusSources {
            hub,
            readiness,
            alive: Box::new(move |index| watchdog.answered_last(index)),
            certificates: Box::new(lives(credentials)),
            generation: Box::new(move || status_state.load().generation()),
        },
        quit,
    }));
    for listener in bound.admin {
        start(listener, Arc::clone(&admin), "admin");
    }
    async move { while servers.join_next().await.is_some() {} }
}

/// What the local source says now, which may differ from the state in force; nothing if it cannot be
/// read.
fn static_config(config: &Config) -> serde_json::Value {
    let state = super::state::reread(config).unwrap_or_else(|error| {
        tracing::warn!(target: "corelane::state", %error, "staticConfig is empty in the dump");
        LocalState::default()
    });
    let workloads: Vec<_> = state.workloads.iter().map(dump::state::workload).collect();
    let services: Vec<_> = state.services.iter().map(dump::state::service).collect();
    let policies: Vec<_> = state
        .policies
        .iter()
        .map(|(_, p)| dump::state::policy(p))
        .collect();
    serde_json::json!({
        "workloads": workloads, "services": services, "policies": policies,
    })
}

fn lives(
    credentials: Subscription<CredentialStore>,
) -> impl Fn() -> Vec<CertificateLife> + Send + Sync {
    move || {
        let store = credentials.load();
        let available = store.entries().filter_map(|(identity, state)| match state {
            CredentialState::Available(credentials) => Some((identity, credentials.not_after())),
            CredentialState::Initializing | CredentialState::Unavailable(_) => None,
        });
        available
            .map(|(identity, not_after)| CertificateLife {
                identity: identity.to_string(),
                seconds_left: seconds_left(not_after),
            })
            .collect()
    }
}

/// Says what the node runs with. JSON on one line, which is YAML too.
pub(crate) fn log_configuration(config: &Config) {
    let shown = dump::config::config(config, &words());
    tracing::info!(target: "corelane::app", "running with configuration: {shown}");
}

/// The words of the command line before the first flag: what follows may be a secret.
fn words() -> Vec<String> {
    let words = std::env::args().skip(1);
    words.take_while(|word| !word.starts_with('-')).collect()
}

fn seconds_left(not_after: SystemTime) -> i64 {
    let now = SystemTime::now();
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match not_after.duration_since(now) {
        Ok(left) => seconds(left),
        Err(past) => -seconds(past.duration()),
    }
}

/// `workloadState` of a shared node, and the open connections that are not shown there.
fn live(
    workloads: Option<View>,
    shards: Vec<ShardMailbox>,
) -> Box<dyn Fn() -> Vec<(&'static str, serde_json::Value)> + Send + Sync> {
    Box::new(move || {
        let mut open = super::connections::open(&shards);
        let mut members = Vec::new();
        if let Some(workloads) = &workloads {
            let mut shown = workloads.dump();
            open = dump::connections::attach(&mut shown, open);
            members.push(("workloadState", shown));
        }
        members.push(("connections", dump::connections::alone(&open)));
        members
    })
}

fn sections(
    config: &Arc<Config>,
    state: Subscription<Snapshot>,
    credentials: Subscription<CredentialStore>,
) -> Vec<Section> {
    let section = |name, view: fn(&Snapshot) -> serde_json::Value| {
        let state = state.clone();
        Section {
            name,
            source: Box::new(move || Ok(view(&state.load()))),
        }
    };
    let config = Arc::clone(config);
    vec![
        section("workloads", |snapshot| {
            snapshot
                .workloads()
                .iter()
                .map(|w| dump::state::workload(w))
                .collect()
        }),
        section("services", |snapshot| {
            snapshot
                .services()
                .iter()
                .map(|s| dump::state::service(s))
                .collect()
        }),
        section("policies", |snapshot| {
            snapshot
                .policies()
                .iter()
                .map(|p| dump::state::policy(p))
                .collect()
        }),
        section("stagedServices", |snapshot| {
            dump::state::staged(&snapshot.staged())
        }),
        Section {
            name: "certificates",
            source: Box::new(move || {
                serde_json::to_value(dump::certificates::certificates(&credentials.load()))
                    .map_err(|error| error.to_string())
            }),
        },
        Section {
            name: "staticConfig",
            source: Box::new({
                let config = Arc::clone(&config);
                move || Ok(static_config(&config))
            }),
        },
        Section {
            name: "config",
            source: Box::new(move || Ok(dump::config::config(&config, &words()))),
        },
    ]
}
