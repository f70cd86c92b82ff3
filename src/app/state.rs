//! The mesh state of a node: a state file, a control plane, or both, published to shards.
//!
//! The file is read at start and again when it changes. [`owner`] holds the one builder both feed.

mod overlay;
pub(crate) mod owner;

use std::rc::Rc;
use std::sync::Arc;

use owner::{Owner, SharedOwner};

use super::supervision::Reload;
use crate::config::{Config, LocalStateSource};
use crate::control::local_state::{self, LocalSource, LocalState, LocalStateError};
use crate::control::watch::Watch;
use crate::snapshot::Snapshot;
use crate::snapshot::exchange::Subscription;

/// The state with the file it is fed from, if there is one.
#[derive(Debug)]
pub(crate) struct State {
    source: Option<LocalSource>,
    loaded: LocalState,
    owner: SharedOwner,
    watch: Option<Watch>,
    reload: Rc<Reload>,
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
        if source.is_some() {
            report(&loaded);
        }
        let node = config.node_name.clone().unwrap_or_default();
        let first = local_state::change_from(&LocalState::default(), &loaded);
        let both = source.is_some() && config.discovery.is_some();
        Ok(Self {
            source,
            loaded,
            owner: Owner::shared(node, first, both),
            watch,
            reload: Rc::default(),
        })
    }

    /// The state in force.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.owner.borrow().current()
    }

    /// For shards and servers.
    pub(crate) fn subscribe(&self) -> Subscription<Snapshot> {
        self.owner.borrow().subscribe()
    }

    /// The owner, for the control plane's changes.
    pub(crate) fn owner(&self) -> SharedOwner {
        SharedOwner::clone(&self.owner)
    }

    /// How to have the file read again.
    pub(crate) fn reload(&self) -> Rc<Reload> {
        Rc::clone(&self.reload)
    }

    /// Follows the file for ever: a good change is published, a bad one changes nothing.
    pub(crate) async fn follow(mut self, published: impl Fn(&Snapshot)) {
        let reload = self.reload();
        let (Some(source), Some(mut watch)) = (self.source.clone(), self.watch.take()) else {
            // Nothing to read: whoever asks for it is told at once.
            loop {
                reload.asked().await;
                reload.done();
            }
        };
        loop {
            let asked = tokio::select! {
                _ = watch.changed() => false,
                () = reload.asked() => true,
            };
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
            if asked {
                reload.done();
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
        let snapshot = self.owner.borrow_mut().local(change);
        self.loaded = next;
        metrics::counter!("corelane_local_state_reloads").increment(1);
        let generation = snapshot.as_ref().map(|snapshot| snapshot.generation());
        tracing::info!(target: "corelane::state", ?generation, "state file reloaded");
        snapshot
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
