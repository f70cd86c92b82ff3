//! The certificates this node needs, kept by the renewal and published to shards.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};

use super::lifecycle::StartError;
use super::shards::broadcast;
use crate::config::{Config, NodeMode, TlsRecords};
use crate::control::certs::files::{self, Files};
use crate::control::certs::istio_ca::{IstioCa, Terms};
use crate::control::certs::{Provider, Renewal};
use crate::control::grpc::Server;
use crate::control::grpc::headers::{Headers, Token};
use crate::control::revocation::RevocationFile;
use crate::dataplane::shard::{CertificateAsker, Message, ShardMailbox};
use crate::model::identity::Identity;
use crate::snapshot::Snapshot;
use crate::snapshot::exchange::{Publisher, Subscription};
use crate::tls::credentials::{CredentialState, CredentialStore};
use crate::tls::{Records, TlsOptions};

/// Time the first certificates get before the node serves without them.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Questions of shards that may wait. There are no more identities than this on a node.
const CERTIFICATE_QUEUE_MAX: usize = 1_024;

type Mailboxes = Rc<RefCell<Vec<ShardMailbox>>>;

/// The published certificates, and how to say which are needed.
#[derive(Debug)]
pub(crate) struct Certificates {
    subscription: Subscription<CredentialStore>,
    needed: watch::Sender<Arc<BTreeSet<Identity>>>,
    /// Identities that connections waited for, besides those known to be needed.
    asked: Rc<RefCell<BTreeSet<Identity>>>,
    asker: Option<CertificateAsker>,
    shards: Mailboxes,
}

impl Certificates {
    /// Starts the renewal beside the caller and waits a moment for the first certificates.
    /// Must run within a `LocalSet`.
    ///
    /// # Errors
    /// [`StartError::Revocation`]: peers could not be checked as they have to be.
    pub(crate) async fn start(
        config: &Config,
        snapshot: &Snapshot,
    ) -> Result<Rc<Self>, StartError> {
        let publisher = Publisher::new(Arc::new(CredentialStore::default()));
        let subscription = publisher.subscribe();
        let (needed, receiver) = watch::channel(Arc::new(needed(config, snapshot)));
        let shards = Mailboxes::default();
        let revocation = config.crl_path.clone().map(RevocationFile::open);
        let revocation = revocation.transpose()?;
        let list = revocation.as_ref().map(RevocationFile::list);
        if let Some(file) = revocation {
            let told = Rc::clone(&shards);
            tokio::task::spawn_local(file.follow(move || {
                broadcast(&told.borrow(), || Message::Changed);
            }));
        }
        let asked = Rc::<RefCell<BTreeSet<Identity>>>::default();
        let mut asker = None;
        if let Some(provider) = provider(config) {
            let told = Rc::clone(&shards);
            let clock = SystemTime::now;
            let options = tls_options(config);
            let renewal = Renewal::new(provider, publisher, options, clock, move || {
                broadcast(&told.borrow(), || Message::Changed);
            })
            .enforcing(list);
            let (urgent, waited_for) = mpsc::channel(CERTIFICATE_QUEUE_MAX);
            tokio::task::spawn_local(renewal.run(receiver, waited_for));
            if config.authority.is_some() {
                let (questions, incoming) = mpsc::channel::<Identity>(CERTIFICATE_QUEUE_MAX);
                let (asked, needed) = (Rc::clone(&asked), needed.clone());
                tokio::task::spawn_local(pass_on(incoming, asked, needed, urgent));
                asker = Some(CertificateAsker::new(move |identity| {
                    questions.try_send(identity.clone()).is_ok()
                }));
            }
        } else {
            tracing::warn!(
                target: "corelane::certs",
                "no source of certificates: HBONE is refused in both directions. Set \
                 CORELANE_IDENTITY_DIR (identityDir) or CA_ADDRESS (ca.address)"
            );
        }
        let certificates = Self {
            subscription,
            needed,
            asked,
            asker,
            shards,
        };
        certificates.first().await;
        Ok(Rc::new(certificates))
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

    /// How a shard asks for a certificate; none where asking changes nothing.
    pub(crate) fn asker(&self) -> Option<CertificateAsker> {
        self.asker.clone()
    }

    /// Shards to tell of new certificates from now on.
    pub(crate) fn tell(&self, shards: Vec<ShardMailbox>) {
        *self.shards.borrow_mut() = shards;
    }

    /// States anew which identities are needed.
    pub(crate) fn need(&self, config: &Config, snapshot: &Snapshot) {
        let mut wanted = needed(config, snapshot);
        let mut asked = self.asked.borrow_mut();
        asked.retain(|identity| snapshot.has_local_identity(identity));
        wanted.extend(asked.iter().cloned());
        self.needed.send_if_modified(|current| {
            let changed = **current != wanted;
            if changed {
                *current = Arc::new(wanted);
            }
            changed
        });
    }
}

/// Where certificates come from.
fn provider(config: &Config) -> Option<Rc<dyn Provider>> {
    if let Some(dir) = &config.identity_dir {
        return Some(Rc::new(Files::new(dir.clone())));
    }
    let authority = config.authority.as_ref()?;
    let server = Server {
        address: authority.address.clone(),
        roots: authority.roots.clone(),
        alt_hostname: authority.alt_hostname.clone(),
        packet_mark: config.socket.packet_mark,
        tls: tls_options(config),
    };
    let headers = Headers {
        token: Token::find(&config.auth_token),
        cluster_id: Arc::clone(&config.cluster_id),
        extra: authority.headers.clone(),
    };
    let terms = Terms {
        lifetime: authority.ttl,
        impersonates: matches!(config.mode, NodeMode::Node(_) | NodeMode::Shared(_)),
        renew_with_certificate: authority.renew_with_certificate,
    };
    Some(Rc::new(IstioCa::new(server, headers, terms)))
}

/// Takes in what shards ask for. An identity asked for stays needed while a local workload has it.
async fn pass_on(
    mut questions: mpsc::Receiver<Identity>,
    asked: Rc<RefCell<BTreeSet<Identity>>>,
    needed: watch::Sender<Arc<BTreeSet<Identity>>>,
    urgent: mpsc::Sender<Identity>,
) {
    while let Some(identity) = questions.recv().await {
        asked.borrow_mut().insert(identity.clone());
        needed.send_if_modified(|current| {
            let is_new = !current.contains(&identity);
            if is_new {
                Arc::make_mut(current).insert(identity.clone());
            }
            is_new
        });
        if urgent.send(identity).await.is_err() {
            return;
        }
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
        NodeMode::Node(_) | NodeMode::Shared(_) => {
            let forwards = config.listeners.forwards.iter().filter_map(|forward| {
                let account = forward.as_workload.as_ref()?;
                snapshot.local_workload_of(&account.namespace, &account.service_account)
            });
            let listed = config.mode.node().into_iter();
            let listed = listed
                .flat_map(|node| node.workloads.all())
                .filter_map(|listed| snapshot.local_workload(&listed.info));
            let named = forwards.chain(listed).map(|workload| workload.identity());
            named.chain(ahead(config, snapshot)).collect()
        }
    }
}

/// Identities of local workloads whose certificates are fetched before a connection needs them.
fn ahead(config: &Config, snapshot: &Snapshot) -> Vec<Identity> {
    let has_node_name = config.node_name.is_some();
    let Some(dir) = &config.identity_dir else {
        // Without a node name every workload of the mesh may be local: each is asked for when a
        // connection needs it.
        return if has_node_name {
            snapshot.tunnelled_identities()
        } else {
            Vec::new()
        };
    };
    let mut local = snapshot.local_identities();
    // The directory tells which ones are meant.
    local.retain(|identity| has_node_name || exists(dir, identity));
    local
}

#[cfg(test)]
mod tests;

fn exists(dir: &Path, identity: &Identity) -> bool {
    files::directory(dir, identity).is_some_and(|folder| folder.is_dir())
}
