//! Log levels at run time: which lines are wanted, changed by `/logging`, known to the shards.
//!
//! One filter rules both kinds of lines. Control-plane lines pass the layer made here; for access
//! lines the filter's level of the target `access` is copied into the atomic that shards read.

pub mod filter;
mod layer;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use filter::{Filter, FilterError};
pub use layer::LogLayer;

use crate::telemetry::access_log;
use crate::telemetry::line::LineFormat;
use crate::telemetry::log_writer::{LogSink, WriterOptions};

/// The levels in force. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logging {
    start: Arc<Filter>,
    current: Arc<ArcSwap<Filter>>,
    sink: LogSink,
}

/// Settings of the log writer for lines that pass `filter`.
#[must_use]
pub fn writer_options(
    filter: &Filter,
    format: LineFormat,
    out: Box<dyn std::io::Write + Send>,
) -> WriterOptions {
    WriterOptions {
        out,
        format,
        access_level: filter.level(access_log::TARGET),
    }
}

impl Logging {
    /// Puts `filter` in force. Lines reach `sink` through the layer of [`Logging::layer`].
    #[must_use]
    pub fn new(filter: Filter, sink: LogSink) -> Self {
        sink.access_level().set(filter.level(access_log::TARGET));
        Self {
            current: Arc::new(ArcSwap::from_pointee(filter.clone())),
            start: Arc::new(filter),
            sink,
        }
    }

    /// The layer that writes control-plane lines.
    #[must_use]
    pub fn layer(&self) -> LogLayer {
        LogLayer::new(Arc::clone(&self.current), self.sink.clone())
    }

    /// Makes this the process's log.
    ///
    /// # Errors
    /// The process has one already.
    pub fn install(&self) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
        use tracing_subscriber::layer::SubscriberExt;
        let subscriber = tracing_subscriber::registry().with(self.layer());
        tracing::subscriber::set_global_default(subscriber)
    }

    /// The filter in force, as text.
    #[must_use]
    pub fn current(&self) -> String {
        self.current.load().to_string()
    }

    /// Adds `directives` (may be empty) to the filter in force, or with `reset` to the one the
    /// process started with.
    ///
    /// # Errors
    /// A directive is refused; nothing changes.
    pub fn change(&self, directives: &str, reset: bool) -> Result<(), FilterError> {
        let base = if reset {
            Arc::clone(&self.start)
        } else {
            self.current.load_full()
        };
        let mut filter = (*base).clone();
        if !directives.is_empty() {
            filter.add_strict(directives)?;
        }
        self.sink
            .access_level()
            .set(filter.level(access_log::TARGET));
        self.current.store(Arc::new(filter));
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
