//! Hostnames of workloads → addresses, when a connection needs them (spec: dns-socks.md A6).
//!
//! Answers are cached for their time to live. All who ask for a name at the same time wait for one
//! look-up, which goes on when they no longer do. The control thread's own: nothing here is shared
//! with another thread.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use hickory_resolver::Resolver;
use hickory_resolver::config::LookupIpStrategy;
use rustc_hash::FxHashMap;
use tokio::sync::watch;
use tokio::time::timeout;

use super::NameServers;
use super::forward::{Origin, ResolverError, Sockets, Use, resolver, says_no_records};
use super::report::{UNKNOWN, limit_hit};
use crate::config::limits::{
    HOSTNAME_CACHE_ENTRIES, HOSTNAME_LOOKUPS_MAX, HOSTNAME_TIMEOUT, HOSTNAME_WAITERS_MAX,
    METRIC_LABEL_BYTES_MAX,
};
use crate::model::workload::Workload;

/// Why a hostname has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    /// The name servers say so, or fail.
    #[error("{0}")]
    Failed(Arc<str>),
    /// Nobody answered.
    #[error("no answer within {HOSTNAME_TIMEOUT:?}")]
    TimedOut,
    /// Too many other names are looked up now, or too many connections wait.
    #[error("too many hostnames are being resolved")]
    TooMany,
}

/// Addresses in no particular order; none where the name exists without any.
pub type Addresses = Result<Arc<[IpAddr]>, HostnameError>;

/// Resolves hostnames. Must be used within a `LocalSet`.
pub struct Hostnames {
    resolver: Resolver<Sockets>,
    under_way: RefCell<FxHashMap<Arc<str>, watch::Receiver<Option<Addresses>>>>,
    waiting: Cell<usize>,
}

impl std::fmt::Debug for Hostnames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hostnames")
            .field("under_way", &self.under_way.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Hostnames {
    /// Asks `name_servers` by marked sockets; without `ipv6` for IPv4 addresses only.
    ///
    /// # Errors
    /// When the resolver refuses its settings.
    pub fn new(
        name_servers: &NameServers,
        packet_mark: Option<u32>,
        ipv6: bool,
    ) -> Result<Self, ResolverError> {
        let origin = Origin {
            mark: packet_mark,
            namespace: None,
        };
        let usage = Use {
            cache_entries: HOSTNAME_CACHE_ENTRIES,
            addresses: if ipv6 {
                LookupIpStrategy::Ipv4AndIpv6
            } else {
                LookupIpStrategy::Ipv4Only
            },
        };
        Ok(Self {
            resolver: resolver(name_servers, origin, usage)?,
            under_way: RefCell::default(),
            waiting: Cell::new(0),
        })
    }

    /// Addresses of `host`, from the cache or from name servers.
    ///
    /// # Errors
    /// See [`HostnameError`]. Dropping the future loses nothing: the look-up goes on for the cache.
    pub async fn resolve(self: &Rc<Self>, host: &Arc<str>) -> Addresses {
        if self.waiting.get() >= HOSTNAME_WAITERS_MAX {
            limit_hit("hostname_waiters");
            return Err(HostnameError::TooMany);
        }
        let mut answer = self.ask(host)?;
        let _waiting = Waiting::begin(&self.waiting);
        let settled = answer.wait_for(Option::is_some).await;
        let settled = settled.ok().and_then(|settled| settled.clone());
        // Without an answer the look-up has panicked.
        settled.unwrap_or_else(|| Err(HostnameError::Failed("the look-up failed".into())))
    }

    /// Joins the look-up that is under way for this host, or starts one.
    fn ask(
        self: &Rc<Self>,
        host: &Arc<str>,
    ) -> Result<watch::Receiver<Option<Addresses>>, HostnameError> {
        let mut under_way = self.under_way.borrow_mut();
        if let Some(answer) = under_way.get(host) {
            return Ok(answer.clone());
        }
        if under_way.len() >= HOSTNAME_LOOKUPS_MAX {
            limit_hit("hostname_lookups");
            return Err(HostnameError::TooMany);
        }
        let (told, answer) = watch::channel(None);
        under_way.insert(Arc::clone(host), answer.clone());
        let (ours, host) = (Rc::clone(self), Arc::clone(host));
        tokio::task::spawn_local(async move {
            let _leave = Leave(&ours, &host);
            let found = ours.look_up(&host).await;
            if let Err(error) = &found {
                tracing::debug!(target: "corelane::dns", %host, %error, "hostname not resolved");
            }
            told.send_replace(Some(found));
        });
        Ok(answer)
    }

    async fn look_up(&self, host: &str) -> Addresses {
        match timeout(HOSTNAME_TIMEOUT, self.resolver.lookup_ip(host)).await {
            Ok(Ok(found)) => Ok(found.iter().collect()),
            Ok(Err(error)) if says_no_records(&error) => Ok(Arc::default()),
            Ok(Err(error)) => Err(HostnameError::Failed(error.to_string().into())),
            Err(_) => {
                limit_hit("hostname_timeout");
                Err(HostnameError::TimedOut)
            }
        }
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn begin(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Takes a look-up off the list, however it ends.
struct Leave<'a>(&'a Hostnames, &'a Arc<str>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.under_way.borrow_mut().remove(self.1);
    }
}

/// Counts that a connection of `source` asked for `host`, whether the answer was known or not.
pub fn count(source: &Workload, host: &str) {
    let value = |text: &str| match text {
        "" => UNKNOWN.to_owned(),
        text => text[..text.floor_char_boundary(METRIC_LABEL_BYTES_MAX)].to_owned(),
    };
    let labels = [
        ("source_workload", value(&source.workload_name)),
        ("source_canonical_service", value(&source.canonical_name)),
        (
            "source_canonical_revision",
            value(&source.canonical_revision),
        ),
        ("source_workload_namespace", value(&source.namespace)),
        ("source_principal", source.identity().to_string()),
        ("source_app", value(&source.canonical_name)),
        ("source_version", value(&source.canonical_revision)),
        ("source_cluster", value(&source.cluster_id)),
        ("hostname", value(host)),
    ];
    metrics::counter!("istio_on_demand_dns", &labels).increment(1);
}

#[cfg(test)]
mod tests;
