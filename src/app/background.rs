//! Everything that runs beside the shards until the node stops, and the gate they start behind.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::credentials::Certificates;
use super::discovery::Discovery;
use super::shards::broadcast;
use super::state::State;
use crate::config::Config;
use crate::control::readiness::Task;
use crate::dataplane::shard::{Message, ShardMailbox};
use crate::snapshot::{Generation, Snapshot};
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
}

impl Background<'_> {
    /// Runs for ever.
    pub(super) async fn run(self) {
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
        tokio::join!(
            open(synced, &certificates, &mailboxes, ready),
            talking,
            state.follow(published),
            housekeeping,
            sweeping,
        );
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
            return;
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
