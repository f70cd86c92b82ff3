//! Asks the control thread for the addresses of hostnames, and hands its answers to those who wait.
//!
//! Names are resolved there because resolvers need timers, sockets and caches of their own, which a
//! shard should not carry. A connection asks once and waits with a deadline; answers come by the
//! shard's mailbox, in any order.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

use super::rt::{self, Signal};
use super::shard::Shard;
use crate::config::limits::HOSTNAME_TIMEOUT;
use crate::model::workload::Workload;
use crate::telemetry::counters::Limit;

/// Whose name it is that a shard asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// A workload's, as its record says: name servers know it.
    Workload,
    /// What a client calls its destination: the mesh may know it, or a name server.
    Destination,
}

/// What a shard wants to know.
#[derive(Debug)]
pub struct Question {
    /// Number of the shard.
    pub shard: usize,
    /// Comes back with the answer.
    pub ticket: u64,
    /// The hostname.
    pub host: Arc<str>,
    /// What it names.
    pub kind: NameKind,
    /// On whose behalf: for the metrics, and for what a destination's name means.
    pub source: Arc<Workload>,
}

/// Addresses of a hostname; `None`: the look-up failed.
pub type Answer = Option<Arc<[IpAddr]>>;

/// Takes questions to the control thread.
pub type Questions = mpsc::Sender<Question>;

/// Questions of one shard.
#[derive(Debug)]
pub(crate) struct Hostnames {
    shard: usize,
    questions: Questions,
    last_ticket: Cell<u64>,
    waiting: RefCell<FxHashMap<u64, Signal<Answer>>>,
}

impl Hostnames {
    pub(crate) fn new(shard: usize, questions: Questions) -> Self {
        Self {
            shard,
            questions,
            last_ticket: Cell::new(0),
            waiting: RefCell::default(),
        }
    }

    /// Hands an answer to the connection that asked, unless it has gone.
    pub(crate) fn answered(&self, ticket: u64, answer: Answer) {
        let waiting = self.waiting.borrow_mut().remove(&ticket);
        if let Some(waiting) = waiting {
            waiting.fire(answer);
        }
    }

    /// A question on its way. `None`: the control thread has too many to answer.
    fn ask(&self, host: &Arc<str>, kind: NameKind, source: &Arc<Workload>) -> Option<Asked<'_>> {
        let ticket = self.last_ticket.get().wrapping_add(1);
        self.last_ticket.set(ticket);
        let question = Question {
            shard: self.shard,
            ticket,
            host: Arc::clone(host),
            kind,
            source: Arc::clone(source),
        };
        self.questions.try_send(question).ok()?;
        let answer = Signal::default();
        self.waiting.borrow_mut().insert(ticket, answer.clone());
        Some(Asked {
            hostnames: self,
            ticket,
            answer,
        })
    }
}

/// A question until its answer is no longer waited for.
struct Asked<'a> {
    hostnames: &'a Hostnames,
    ticket: u64,
    answer: Signal<Answer>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.hostnames.waiting.borrow_mut().remove(&self.ticket);
    }
}

/// Addresses of a workload's `host`, asked for on behalf of `source`. Dropping the future withdraws the
/// question.
pub(crate) async fn resolve(shard: &Shard, host: &Arc<str>, source: &Arc<Workload>) -> Answer {
    ask(shard, host, NameKind::Workload, source).await
}

/// The same for what a client calls its destination.
pub(crate) async fn destination(shard: &Shard, host: &Arc<str>, source: &Arc<Workload>) -> Answer {
    ask(shard, host, NameKind::Destination, source).await
}

async fn ask(shard: &Shard, host: &Arc<str>, kind: NameKind, source: &Arc<Workload>) -> Answer {
    let counters = shard.telemetry.counters();
    let Some(asked) = shard.hostnames.ask(host, kind, source) else {
        counters.limit(Limit::HostnameQuestions).add(1);
        return None;
    };
    match rt::within(HOSTNAME_TIMEOUT, asked.answer.wait()).await {
        Some(answer) => answer,
        None => {
            counters.limit(Limit::HostnameTimeout).add(1);
            None
        }
    }
}
