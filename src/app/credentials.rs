//! The certificates this node needs, kept by the renewal and published to shards.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::shards::broadcast;
use crate::config::{Config, NodeMode, TlsRecords};
use crate::control::certs::Renewal;
use crate::control::certs::files::{self, Files};
use crate::dataplane::shard::{Message, ShardMailbox};
use crate::model::identity::Identity;
use crate::snapshot::Snapshot;
use crate::snapshot::exchange::{Publisher, Subscription};
use crate::tls::credentials::{CredentialState, CredentialStore};
use crate::tls::{Records, TlsOptions};

/// Time the first certificates get before the node serves without them.
const FIRST_WAIT: Duration = Duration::from_secs(2);

type Mailboxes = Rc<RefCell<Vec<ShardMailbox>>>;

/// The published certificates, and how to say which are needed.
#[derive(Debug)]
pub(crate) struct Certificates {
    subscription: Subscription<CredentialStore>,
    needed: watch::Sender<Arc<BTreeSet<Identity>>>,
    shards: Mailboxes,
}

impl Certificates {
    /// Starts the renewal beside the caller and waits a moment for the first certificates.
    /// Must run within a `LocalSet`.
    pub(crate) async fn start(config: &Config, snapshot: &Snapshot) -> Self {
        let publisher = Publisher::new(Arc::new(CredentialStore::default()));
        let subscription = publisher.subscribe();
        let (needed, receiver) = watch::channel(Arc::new(needed(config, snapshot)));
        let shards = Mailboxes::default();
        match &config.identity_dir {
            Some(dir) => {
                let told = Rc::clone(&shards);
                let options = tls_options(config);
                let clock = SystemTime::now;
                let renewal = Renewal::new(
                    Rc::new(Files::new(dir.clone())),
                    publisher,
                    options,
                    clock,
                    move || broadcast(&told.borrow(), || Message::Changed),
                );
                tokio::task::spawn_local(renewal.run(receiver));
            }
            None => tracing::warn!(
                target: "corelane::certs",
                "no source of certificates: HBONE is refused in both directions. Set \
                 CORELANE_IDENTITY_DIR (identityDir)"
            ),
        }
        let certificates = Self {
            subscription,
            needed,
            shards,
        };
        certificates.first().await;
        certificates
    }

    /// Waits until each needed identity has its certificate or an error.
    pub(crate) async fn first(&self) {
        let settled = async {
            loop {
                let store = self.subscription.load();
                let known: BTreeSet<_> = store
                    .entries()
                    .filter(|(_, state)| !matches!(state, CredentialState::Initializing))
                    .map(|(identity, _)| identity.clone())
                    .collect();
                if self.needed.is_closed() || self.needed.borrow().is_subset(&known) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(FIRST_WAIT, settled).await.is_err() {
            tracing::warn!(
                target: "corelane::certs",
                "some certificates are not there yet; starting without them"
            );
        }
    }

    /// For shards and servers.
    pub(crate) fn subscribe(&self) -> Subscription<CredentialStore> {
        self.subscription.clone()
    }

    /// Shards to tell of new certificates from now on.
    pub(crate) fn tell(&self, shards: Vec<ShardMailbox>) {
        *self.shards.borrow_mut() = shards;
    }

    /// States anew which identities are needed.
    pub(crate) fn need(&self, config: &Config, snapshot: &Snapshot) {
        let wanted = needed(config, snapshot);
        self.needed.send_if_modified(|current| {
            let changed = **current != wanted;
            if changed {
                *current = Arc::new(wanted);
            }
            changed
        });
    }
}

/// Versions and groups, and who moves records.
pub(crate) const fn tls_options(config: &Config) -> TlsOptions {
    TlsOptions {
        tls12: config.tls.tls12,
        pqc_only: config.tls.pqc_only,
        records: match config.tls.records {
            TlsRecords::InPlace => Records::InPlace,
            TlsRecords::Rustls => Records::Library,
        },
    }
}

/// Identities of the workloads this node speaks for.
fn needed(config: &Config, snapshot: &Snapshot) -> BTreeSet<Identity> {
    match &config.mode {
        NodeMode::Dedicated { workload } => snapshot
            .local_workload(workload)
            .map(|workload| workload.identity())
            .into_iter()
            .collect(),
        NodeMode::Node => {
            let forwards = config.listeners.forwards.iter().filter_map(|forward| {
                let account = forward.as_workload.as_ref()?;
                snapshot.local_workload_of(&account.namespace, &account.service_account)
            });
            let forwards = forwards.map(|workload| workload.identity());
            // Without a node name every workload of the mesh may be local; the directory tells
            // which ones are meant.
            let strict = config.node_name.is_some();
            let present = |identity: &Identity| {
                strict
                    || config
                        .identity_dir
                        .as_deref()
                        .is_some_and(|dir| exists(dir, identity))
            };
            forwards
                .chain(snapshot.local_identities().into_iter().filter(present))
                .collect()
        }
    }
}

fn exists(dir: &Path, identity: &Identity) -> bool {
    files::directory(dir, identity).is_some_and(|folder| folder.is_dir())
}
