//! The conversation with a control plane, without I/O (spec: xds.md 3).
//!
//! The owner of the stream tells what happened ([`Client::connected`], [`Client::begin`] and
//! [`Client::finish`] around a response, [`Client::disconnected`]) and sends what it gets back. Time
//! comes in as an argument. State is kept over streams: a new one starts by telling what we hold.
//!
//! A response is applied in slices, so that the owner can let others run between them. Its changes
//! belong together: the owner publishes after the last one.

mod demand;
mod intake;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use demand::Demand;
pub use demand::{DEMAND_TIMEOUT, DemandError};
pub use intake::{Intake, Received};

use super::convert::Rejected;
use super::resource::ResourceType;
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status};

/// Longest text of a refusal. A control plane takes 4 MiB; people read less.
const ERROR_DETAIL_BYTES_MAX: usize = 16 * 1024;

/// What we ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    All,
    /// All policies; addresses when a look-up misses.
    OnDemand,
}

/// Versions of what is held, by resource name.
type Versions = HashMap<Arc<str>, Arc<str>>;

/// What is held of one type.
#[derive(Debug, Default)]
struct Subscription {
    retained: Versions,
    /// The first response that was acknowledged has come.
    answered: bool,
}

/// State of the conversation. `W` is what a waiting look-up is answered by.
#[derive(Debug)]
pub struct Client<W> {
    node: Node,
    mode: Mode,
    addresses: Subscription,
    authorizations: Subscription,
    demand: Demand<W>,
    /// Number of the stream that is open.
    stream: Option<u64>,
    streams: u64,
    synced: bool,
    keep_received: bool,
}

/// What follows from a response that has been applied.
#[derive(Debug)]
pub struct Outcome<W> {
    /// Acknowledgement or refusal; none if the stream of the response is gone.
    pub reply: Option<DeltaDiscoveryRequest>,
    /// Look-ups to repeat: what they asked for is there, or is known not to exist.
    pub answered: Vec<W>,
    /// Resources refused, with the reason.
    pub rejected: Vec<(String, Rejected)>,
    /// Whether the state became complete for the first time.
    pub synced_now: bool,
    /// What was accepted and removed, if it is kept.
    pub received: Option<Received>,
}

impl<W> Client<W> {
    /// Nothing held, no stream.
    #[must_use]
    pub fn new(node: Node, mode: Mode) -> Self {
        Self {
            node,
            mode,
            addresses: Subscription::default(),
            authorizations: Subscription::default(),
            demand: Demand::default(),
            stream: None,
            streams: 0,
            synced: false,
            keep_received: false,
        }
    }

    /// From now on outcomes say what was received, byte by byte ([`Outcome::received`]).
    pub const fn keep_received(&mut self) {
        self.keep_received = true;
    }

    /// Whether everything we wait for at start has come once (never taken back).
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.synced
    }

    /// A stream is open: what to send on it, at once.
    pub fn connected(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.streams += 1;
        self.stream = Some(self.streams);
        let mut requests: Vec<_> = ResourceType::ALL.map(|kind| self.initial(kind)).into();
        let unanswered = self.demand.keys();
        if !unanswered.is_empty() {
            requests.push(subscribe(unanswered));
        }
        requests
    }

    fn initial(&self, kind: ResourceType) -> DeltaDiscoveryRequest {
        // Subscribed to everything and to nothing in one message: the way to say "to nothing yet".
        let names = match (kind, self.mode) {
            (ResourceType::Address, Mode::OnDemand) => vec!["*".to_owned()],
            (ResourceType::Address | ResourceType::Authorization, _) => Vec::new(),
        };
        let retained = self.subscription(kind).retained.iter();
        DeltaDiscoveryRequest {
            node: Some(self.node.clone()),
            type_url: kind.url().to_owned(),
            resource_names_subscribe: names.clone(),
            resource_names_unsubscribe: names,
            initial_resource_versions: retained
                .map(|(name, version)| (name.to_string(), version.to_string()))
                .collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// The stream is gone. What is held stays, look-ups go on waiting.
    pub const fn disconnected(&mut self) {
        self.stream = None;
    }

    /// Takes a response in. Its changes come from [`Intake::next_change`].
    pub fn begin(&self, response: DeltaDiscoveryResponse) -> Intake {
        Intake::new(response, self.stream, self.keep_received)
    }

    /// Books a response whose changes have all been applied and published.
    pub fn finish(&mut self, intake: Intake) -> Outcome<W> {
        let intake::Booking {
            kind,
            reply,
            stream,
            accepted,
            removed,
            aliases,
            rejected,
            kept,
        } = intake.into_booking();
        let mut answered = Vec::new();
        let mut received = None;
        if let Some(kind) = kind {
            received = kept.map(|accepted| Received {
                kind,
                accepted,
                removed: removed.clone(),
            });
            if kind == ResourceType::Address {
                let named = accepted.iter().map(|(name, _)| &**name);
                let gone = removed.iter().map(|name| &**name);
                let refused = rejected.iter().map(|(name, _)| name.as_str());
                let others = aliases.iter().map(String::as_str);
                for name in named.chain(gone).chain(refused).chain(others) {
                    self.demand.answer(name, &mut answered);
                }
            }
            let subscription = self.subscription_mut(kind);
            subscription.retained.extend(accepted);
            for name in &removed {
                subscription.retained.remove(name);
            }
            subscription.answered |= rejected.is_empty();
        }
        let synced_now = !self.synced && self.is_complete();
        self.synced |= synced_now;
        let current = self.stream.is_some() && self.stream == stream;
        Outcome {
            reply: current.then(|| with_detail(reply, &rejected)),
            answered,
            rejected,
            synced_now,
            received,
        }
    }

    fn is_complete(&self) -> bool {
        let addresses = self.mode == Mode::OnDemand || self.addresses.answered;
        addresses && self.authorizations.answered
    }

    /// A look-up missed: asks for `key` (`network/ip`, `namespace/hostname` or a workload's uid).
    /// Returns what to send, if anything: a key that others wait for is asked for once, and without a
    /// stream it is asked for on the next one.
    ///
    /// # Errors
    /// Too many wait, or the key is none; the waiter is given back.
    pub fn look_up(
        &mut self,
        key: &str,
        waiter: W,
        now: Instant,
    ) -> Result<Option<DeltaDiscoveryRequest>, (W, DemandError)> {
        let first = self.demand.wait(key, waiter, now, self.stream.is_some())?;
        if !first {
            return Ok(None);
        }
        // Named again on the next stream, so that the server keeps us informed about it.
        let retained = &mut self.addresses.retained;
        retained.entry(key.into()).or_insert_with(|| "".into());
        Ok(self.stream.map(|_| subscribe(vec![key.to_owned()])))
    }

    /// Look-ups that waited in vain until `now`; they are to be answered by what is held.
    pub fn expire(&mut self, now: Instant) -> Vec<W> {
        self.demand.expire(now)
    }

    /// When [`Self::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.demand.next_deadline()
    }

    const fn subscription(&self, kind: ResourceType) -> &Subscription {
        match kind {
            ResourceType::Address => &self.addresses,
            ResourceType::Authorization => &self.authorizations,
        }
    }

    const fn subscription_mut(&mut self, kind: ResourceType) -> &mut Subscription {
        match kind {
            ResourceType::Address => &mut self.addresses,
            ResourceType::Authorization => &mut self.authorizations,
        }
    }
}

fn subscribe(names: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: ResourceType::Address.url().to_owned(),
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    }
}

fn with_detail(
    reply: DeltaDiscoveryRequest,
    rejected: &[(String, Rejected)],
) -> DeltaDiscoveryRequest {
    let error_detail = (!rejected.is_empty()).then(|| Status {
        message: error_text(rejected),
        ..Status::default()
    });
    DeltaDiscoveryRequest {
        error_detail,
        ..reply
    }
}

/// `<name>: <reason>` of each, as far as there is room.
fn error_text(rejected: &[(String, Rejected)]) -> String {
    let mut text = String::new();
    for (index, (name, why)) in rejected.iter().enumerate() {
        let entry = format!("{name}: {why}");
        if text.len() + entry.len() > ERROR_DETAIL_BYTES_MAX {
            let rest = rejected.len() - index;
            return format!("{text}; and {rest} more");
        }
        if index > 0 {
            text.push_str("; ");
        }
        text.push_str(&entry);
    }
    text
}

#[cfg(test)]
mod tests;
