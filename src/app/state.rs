//! The mesh state of a node: read at start, read again when its file changes, published to shards.

use std::sync::Arc;

use crate::config::{Config, LocalStateSource};
use crate::control::local_state::{self, LocalSource, LocalState, LocalStateError};
use crate::control::watch::Watch;
use crate::snapshot::Snapshot;
use crate::snapshot::builder::Builder;
use crate::snapshot::exchange::{Publisher, Subscription};

/// Owner of the state: the only one who publishes.
#[derive(Debug)]
pub(crate) struct State {
    source: Option<LocalSource>,
    loaded: LocalState,
    builder: Builder,
    publisher: Publisher<Snapshot>,
    watch: Option<Watch>,
}

impl State {
    /// Reads the local state, if any is configured, and publishes the first snapshot.
    pub(crate) fn load(config: &Config) -> Result<Self, LocalStateError> {
        let source = source(config);
        // Watched before it is read: a change in between must not be missed.
        let watch = match &source {
            Some(LocalSource::Path(path)) => Some(Watch::new([path.clone()])),
            Some(LocalSource::Inline(_)) | None => None,
        };
        let loaded = match &source {
            Some(source) => source.load()?,
            None => LocalState::default(),
        };
        report(&loaded);
        let node = config.node_name.clone().unwrap_or_default();
        let mut builder = Builder::new(node);
        let first = builder.apply(local_state::change_from(&LocalState::default(), &loaded));
        Ok(Self {
            source,
            loaded,
            builder,
            publisher: Publisher::new(first),
            watch,
        })
    }

    /// The state in force.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.publisher.current()
    }

    /// For shards and servers.
    pub(crate) fn subscribe(&self) -> Subscription<Snapshot> {
        self.publisher.subscribe()
    }

    /// Follows the file for ever: a good change is published, a bad one changes nothing.
    pub(crate) async fn follow(mut self, published: impl Fn(&Snapshot)) {
        let (Some(source), Some(mut watch)) = (self.source.clone(), self.watch.take()) else {
            return std::future::pending().await;
        };
        loop {
            watch.changed().await;
            match source.load() {
                Ok(next) => {
                    if let Some(snapshot) = self.publish(next) {
                        published(&snapshot);
                    }
                }
                Err(error) => {
                    metrics::counter!("corelane_local_state_reload_failures").increment(1);
                    tracing::error!(
                        target: "corelane::state",
                        "the changed state file is refused, the previous state stays in force: \
                         {error}"
                    );
                }
            }
        }
    }

    fn publish(&mut self, next: LocalState) -> Option<Arc<Snapshot>> {
        let change = local_state::change_from(&self.loaded, &next);
        if change.is_empty() {
            if next.warnings != self.loaded.warnings {
                report(&next);
            }
            self.loaded = next;
            return None;
        }
        report(&next);
        let snapshot = self.builder.apply(change);
        let generation = snapshot.generation();
        self.publisher.publish(Arc::clone(&snapshot));
        self.loaded = next;
        metrics::counter!("corelane_local_state_reloads").increment(1);
        tracing::info!(target: "corelane::state", generation, "state file reloaded");
        Some(snapshot)
    }
}

/// The configured source of local state.
fn source(config: &Config) -> Option<LocalSource> {
    config.local_state.as_ref().map(|source| match source {
        LocalStateSource::Path(path) => LocalSource::Path(path.clone()),
        LocalStateSource::Inline(text) => LocalSource::Inline(text.to_string()),
    })
}

/// The local state as it stands at its source now, for the dump (spec: admin.md 3.1).
pub(crate) fn reread(config: &Config) -> Result<LocalState, LocalStateError> {
    source(config).map_or_else(|| Ok(LocalState::default()), |source| source.load())
}

fn report(state: &LocalState) {
    for warning in &state.warnings {
        tracing::warn!(target: "corelane::state", "{warning}");
    }
    tracing::info!(
        target: "corelane::state",
        workloads = state.workloads.len(),
        services = state.services.len(),
        policies = state.policies.len(),
        "local state loaded"
    );
}
