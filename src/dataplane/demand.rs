//! Look-ups that miss: asks the control thread, and waits for the control plane's answer.
//!
//! Only where addresses come on demand. One question a key and shard is under way at a time; all who
//! wait for it are told. Without an answer a connection is refused: what nobody knows might be a
//! workload that must not be spoken to in clear text.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::rt::{self, Signal};
use super::shard::Shard;
use crate::config::limits::{DEMAND_ROUNDS_MAX, DEMAND_SHARD_WAITERS_MAX, DEMAND_WAIT};
use crate::decision::missing::missing;
use crate::decision::route::RouteRequest;
use crate::model::close::CloseReason;
use crate::telemetry::counters::Limit;

/// Puts a question for a key to the control thread. False: it takes no more now. Each question taken
/// is answered by a message, `Told`.
#[derive(Clone)]
pub struct Asker(Arc<dyn Fn(Arc<str>) -> bool + Send + Sync>);

impl Asker {
    /// By this function.
    #[must_use]
    pub fn new(ask: impl Fn(Arc<str>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asker")
    }
}

/// Why a look-up has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DemandError {
    /// The control plane did not answer in time, or cannot be asked.
    #[error("the control plane did not say what {0} is")]
    Unanswered(Arc<str>),
    /// Too much is being asked.
    #[error("too many look-ups wait for the control plane ({0})")]
    TooMany(Arc<str>),
}

impl From<DemandError> for CloseReason {
    fn from(error: DemandError) -> Self {
        Self::Route(error.to_string())
    }
}

/// Questions of one shard that are under way.
#[derive(Debug)]
pub(crate) struct Demand {
    asker: Option<Asker>,
    waiting: RefCell<HashMap<Arc<str>, Rc<Question>>>,
    waiters: Cell<usize>,
}

#[derive(Debug, Default)]
struct Question {
    /// Whether there was an answer.
    told: Signal<bool>,
    waiters: Cell<usize>,
}

impl Demand {
    pub(crate) fn new(asker: Option<Asker>) -> Self {
        Self {
            asker,
            waiting: RefCell::default(),
            waiters: Cell::new(0),
        }
    }

    /// The control thread's answer: the snapshot is as new as the answer.
    pub(crate) fn told(&self, key: &str, answered: bool) {
        let question = self.waiting.borrow_mut().remove(key);
        if let Some(question) = question {
            question.told.fire(answered);
        }
    }

    /// Asks for `key` and waits. Afterwards the snapshot tells, whatever the answer was.
    async fn ask(&self, key: &Arc<str>) -> Result<(), DemandError> {
        let Some(asker) = &self.asker else {
            return Ok(());
        };
        let waiting = self.wait(asker, key)?;
        match rt::within(DEMAND_WAIT, waiting.question.told.wait()).await {
            Some(true) => Ok(()),
            Some(false) | None => Err(DemandError::Unanswered(Arc::clone(key))),
        }
    }

    fn wait<'a>(&'a self, asker: &Asker, key: &Arc<str>) -> Result<Waiting<'a>, DemandError> {
        if self.waiters.get() >= DEMAND_SHARD_WAITERS_MAX {
            return Err(DemandError::TooMany(Arc::clone(key)));
        }
        let known = self.waiting.borrow().get(key).cloned();
        let question = match known {
            Some(question) => question,
            None if (asker.0)(Arc::clone(key)) => {
                let question = Rc::<Question>::default();
                let mut waiting = self.waiting.borrow_mut();
                waiting.insert(Arc::clone(key), Rc::clone(&question));
                question
            }
            None => return Err(DemandError::TooMany(Arc::clone(key))),
        };
        self.waiters.set(self.waiters.get() + 1);
        question.waiters.set(question.waiters.get() + 1);
        Ok(Waiting {
            demand: self,
            key: Arc::clone(key),
            question,
        })
    }
}

/// One who waits. The last one to leave takes the question along, so that the next asks anew.
struct Waiting<'a> {
    demand: &'a Demand,
    key: Arc<str>,
    question: Rc<Question>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.demand.waiters.set(self.demand.waiters.get() - 1);
        let left = self.question.waiters.get() - 1;
        self.question.waiters.set(left);
        if left == 0 {
            let mut waiting = self.demand.waiting.borrow_mut();
            let own = waiting.get(&self.key);
            if own.is_some_and(|question| Rc::ptr_eq(question, &self.question)) {
                waiting.remove(&self.key);
            }
        }
    }
}

/// Asks for one key, counted when a limit is reached.
pub(crate) async fn look_up(shard: &Shard, key: &Arc<str>) -> Result<(), DemandError> {
    let asked = shard.demand.ask(key).await;
    let limit = match &asked {
        Ok(()) => return asked,
        Err(DemandError::Unanswered(_)) => Limit::DemandWait,
        Err(DemandError::TooMany(_)) => Limit::DemandWaiters,
    };
    shard.telemetry.counters().limit(limit).add(1);
    asked
}

/// Asks for everything the route of `request` leads to and the snapshot does not hold.
pub(crate) async fn settle(shard: &Shard, request: &RouteRequest) -> Result<(), DemandError> {
    if shard.demand.asker.is_none() {
        return Ok(());
    }
    let mut asked = Vec::new();
    while asked.len() < DEMAND_ROUNDS_MAX
        && let Some(key) = missing(request, &shard.snapshot(), &asked)
    {
        // Boxed, like all that seldom happens: a set-up has no room for it.
        Box::pin(look_up(shard, &key)).await?;
        asked.push(key);
    }
    Ok(())
}
