//! Everything that runs beside the shards until the node stops, and the gate they start behind.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::RunError;
use super::credentials::Certificates;
use super::discovery::Discovery;
use super::dns::pods::PodNames;
use super::shards::broadcast;
use super::state::State;
use super::workloads::Workloads;
use crate::config::Config;
use crate::control::readiness::{Readiness, Task};
use crate::control::zds::{self, view::View};
use crate::dataplane::shard::{Message, ShardMailbox};
use crate::snapshot::{Generation, Snapshot};
use crate::sys::netns::Home;
use crate::sys::program;
use crate::telemetry::Hub;

/// How often old series are dropped.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(5);
/// How often snapshots that nobody reads any more are freed.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// What it works on.
pub(super) struct Background<'a> {
    pub(super) config: &'a Config,
    pub(super) state: State,
    pub(super) discovery: Option<Discovery>,
    pub(super) certificates: Rc<Certificates>,
    pub(super) mailboxes: Vec<ShardMailbox>,
    pub(super) hub: &'a Hub,
    /// Told the number of each snapshot that is published.
    pub(super) generation: watch::Sender<Generation>,
    pub(super) recorder: metrics_exporter_prometheus::PrometheusHandle,
    /// Done when the gate opens.
    pub(super) ready: Task,
    /// The node's agent, to be asked once the gate is open.
    pub(super) agent: Option<Agent>,
}

/// The conversation with the node's agent, not yet begun.
pub(super) struct Agent {
    options: zds::Options,
    workloads: Workloads,
}

impl Agent {
    /// With the way back from workloads' namespaces, and what answers names there.
    pub(super) fn new(
        config: &Arc<Config>,
        (home, names): (Home, Option<PodNames>),
        shards: Vec<ShardMailbox>,
        stopped: &watch::Receiver<bool>,
        readiness: &Readiness,
    ) -> Self {
        let shared = config.mode.shared();
        Self {
            options: zds::Options {
                socket: shared
                    .map(|shared| shared.agent.clone())
                    .unwrap_or_default(),
                home,
                stop: stopped.clone(),
                readiness: readiness.clone(),
                view: View::default(),
            },
            workloads: Workloads::new(Arc::clone(config), shards, names),
        }
    }

    /// What operators see of it.
    pub(super) fn view(&self) -> View {
        self.options.view.clone()
    }
}

impl Background<'_> {
    /// Runs beside the endpoints for operators until it fails.
    pub(super) async fn beside(self, servers: impl Future<Output = ()>) -> RunError {
        let served = async {
            servers.await;
            // A node whose endpoints are all off still carries traffic.
            std::future::pending().await
        };
        let error = tokio::select! {
            error = self.run() => error,
            error = served => error,
        };
        RunError::Agent(error)
    }

    /// Runs until the node's agent breaks the rules, which it should never do.
    async fn run(self) -> zds::ProtocolError {
        let Self {
            config,
            state,
            discovery,
            certificates,
            mailboxes,
            hub,
            generation,
            recorder,
            ready,
            agent,
        } = self;
        let owner = state.owner();
        let housekeeping = async {
            let mut every = tokio::time::interval(HOUSEKEEPING_INTERVAL);
            loop {
                every.tick().await;
                hub.housekeep(Instant::now().into_std());
                recorder.run_upkeep();
            }
        };
        let sweeping = async {
            let mut every = tokio::time::interval(SWEEP_INTERVAL);
            loop {
                every.tick().await;
                owner.borrow_mut().sweep();
            }
        };
        let published = |snapshot: &Snapshot| {
            broadcast(&mailboxes, || Message::Changed);
            generation.send_replace(snapshot.generation());
            certificates.need(config, snapshot);
        };
        let synced = discovery.as_ref().map(Discovery::synced);
        let talking = async {
            if let Some(discovery) = discovery {
                // Boxed: it is large, and one of many things that run here.
                Box::pin(discovery.run(Rc::clone(&owner), published, &mailboxes)).await;
            }
        };
        let serving = async {
            open(synced, &certificates, &mailboxes, ready).await;
            if let Some(Agent { options, workloads }) = agent
                && let Err(error) = Box::pin(zds::run(options, workloads)).await
            {
                return error;
            }
            std::future::pending().await
        };
        let beside = async {
            tokio::join!(talking, state.follow(published), housekeeping, sweeping);
            std::future::pending().await
        };
        tokio::select! {
            error = serving => error,
            error = beside => error,
        }
    }
}

/// Lets the shards accept once the state is complete and its certificates are there, or had their
/// time (spec: xds.md 3.5).
async fn open(
    synced: Option<watch::Receiver<bool>>,
    certificates: &Certificates,
    mailboxes: &[ShardMailbox],
    ready: Task,
) {
    if let Some(mut synced) = synced {
        if synced.wait_for(|synced| *synced).await.is_err() {
            return std::future::pending().await;
        }
        certificates.first().await;
        broadcast(mailboxes, || Message::Open);
    }
    ready.done(Instant::now());
    // From here on much less of the program runs than until now.
    match program::release_code() {
        Ok(bytes) => tracing::debug!(target: "corelane::app", bytes, "code given back"),
        Err(error) => tracing::debug!(target: "corelane::app", %error, "code stays resident"),
    }
}
