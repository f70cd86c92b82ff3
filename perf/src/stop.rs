//! The wish to stop: Ctrl-C, SIGTERM and SIGHUP set a flag that every wait of the lab looks at, so that
//! namespaces and processes are taken down in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corelane_harness::clock;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result};

/// Handed to everything that waits.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    wanted: Arc<AtomicBool>,
}

impl Stop {
    /// A flag that signals of this process set from now on.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn on_signals() -> Result<Self> {
        let stop = Self::default();
        let wanted = Arc::clone(&stop.wanted);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::io("signal runtime"))?;
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let guard = runtime.enter();
        let [mut interrupt, mut terminate, mut hangup] = kinds.map(signal);
        drop(guard);
        for handler in [&mut interrupt, &mut terminate, &mut hangup] {
            if let Err(source) = handler {
                let why = source.to_string();
                return Err(Error::Io {
                    what: "signal handler".into(),
                    source: std::io::Error::other(why),
                });
            }
        }
        std::thread::spawn(move || {
            runtime.block_on(async {
                let (Ok(a), Ok(b), Ok(c)) = (&mut interrupt, &mut terminate, &mut hangup) else {
                    return;
                };
                tokio::select! { _ = a.recv() => {}, _ = b.recv() => {}, _ = c.recv() => {} }
                wanted.store(true, Ordering::Relaxed);
                eprintln!("\nstopping: taking the lab down");
            });
        });
        Ok(stop)
    }

    /// Fails once someone asked to stop.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn check(&self) -> Result<()> {
        if self.wanted.load(Ordering::Relaxed) {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }

    /// Waits for a value; `None` after `limit`.
    ///
    /// # Errors
    /// What `probe` fails with, or [`Error::Interrupted`].
    pub fn wait<T>(
        &self,
        limit: Duration,
        mut probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let seen = clock::try_wait_for(limit, || match self.check().and_then(|()| probe()) {
            Ok(None) => None,
            Ok(Some(value)) => Some(Ok(value)),
            Err(error) => Some(Err(error)),
        });
        seen.transpose()
    }

    /// Lets `span` pass: for states that need time to establish themselves, such as full windows.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn pause(&self, span: Duration) -> Result<()> {
        let end = Instant::now() + span;
        let passed = || Ok((Instant::now() >= end).then_some(()));
        self.wait(span + Duration::from_secs(1), passed).map(|_| ())
    }
}
