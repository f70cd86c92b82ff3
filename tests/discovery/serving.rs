//! A thread with a runtime of its own, on which a test's server or client runs.

use std::thread::JoinHandle;

use tokio::sync::oneshot;

/// The running thread. Dropped, it is gone with all its tasks and connections.
pub(crate) struct Serving {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Runs what `make` makes, on the thread.
    pub(crate) fn start<F: Future>(make: impl FnOnce() -> F + Send + 'static) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    _ = make() => {}
                    _ = stopped => {}
                }
            });
            // Ends the tasks of all connections.
            runtime.shutdown_background();
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    #[track_caller]
    pub(crate) fn assert_alive(&self) {
        let thread = self.thread.as_ref().expect("not dropped");
        assert!(!thread.is_finished(), "the thread has panicked");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the thread has panicked"
            );
        }
    }
}
