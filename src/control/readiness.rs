//! Readiness endpoint: 200 once every named start-up task is done and the shards answer.

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};
use tokio::time::Instant;

use super::http::{Answer, Handler, Request, Response, empty, text};

/// Time in which every shard must answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Shown as pending when the shards do not answer.
const DATA_PLANE: &str = "data plane";

/// Completes when every shard has taken a turn since it was called.
pub type Probe = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Named tasks that must be done before the node takes traffic. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness {
    #[expect(clippy::disallowed_types, reason = "control side only, a few names")]
    pending: Arc<std::sync::Mutex<BTreeSet<&'static str>>>,
    started: Instant,
}

/// One pending task. Dropped without [`Task::done`] it stays pending.
#[derive(Debug)]
#[must_use]
pub struct Task {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// No task yet; `started` is when the process began, for the log.
    #[must_use]
    pub fn new(started: Instant) -> Self {
        Self {
            pending: Arc::default(),
            started,
        }
    }

    /// Makes a task pending, also one that was done before.
    pub fn task(&self, name: &'static str) -> Task {
        self.lock().insert(name);
        Task {
            readiness: self.clone(),
            name,
        }
    }

    /// Names of the pending tasks, sorted.
    #[must_use]
    pub fn pending(&self) -> Vec<&'static str> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<&'static str>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    /// The task is done; `now` gives the elapsed time for the log.
    pub fn done(self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.readiness.started);
        let left = {
            let mut pending = self.readiness.lock();
            pending.remove(self.name);
            pending.len()
        };
        let name = self.name;
        if left == 0 {
            tracing::info!("task '{name}' complete ({elapsed:?}), marking server ready");
        } else {
            tracing::info!("task '{name}' complete ({elapsed:?}), still awaiting {left} tasks");
        }
    }
}

/// The endpoint.
pub struct ReadinessHandler {
    readiness: Readiness,
    probe: Probe,
    timeout: Duration,
}

impl Debug for ReadinessHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadinessHandler")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

impl ReadinessHandler {
    /// Serves the state of `readiness`; `probe` proves that the shards run.
    #[must_use]
    pub const fn new(readiness: Readiness, probe: Probe) -> Self {
        Self {
            readiness,
            probe,
            timeout: PROBE_TIMEOUT,
        }
    }

    async fn ready(&self) -> Response {
        let mut pending = self.readiness.pending();
        if tokio::time::timeout(self.timeout, (self.probe)())
            .await
            .is_err()
        {
            pending.push(DATA_PLANE);
            pending.sort_unstable();
        }
        if pending.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        let body = format!("not ready, pending: {}\n", pending.join(", "));
        text(StatusCode::INTERNAL_SERVER_ERROR, body)
    }
}

impl Handler for ReadinessHandler {
    fn handle(&self, request: Request) -> Answer<'_> {
        Box::pin(async move {
            Ok(match (request.path(), &request.method) {
                ("/healthz/ready", &Method::GET) => self.ready().await,
                ("/healthz/ready", _) => empty(StatusCode::METHOD_NOT_ALLOWED),
                _ => empty(StatusCode::NOT_FOUND),
            })
        })
    }
}

#[cfg(test)]
mod tests;
