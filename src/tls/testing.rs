//! In-memory transports and a two-task executor for the tests of this module.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::SystemTime;

use super::TlsOptions;
use super::credentials::Credentials;
use super::dev_pki::Authority;
use crate::model::identity::Identity;
use crate::transport::Transport;

/// How a pair of ends behaves.
#[derive(Clone, Copy)]
pub(super) struct PipeOptions {
    /// Bytes in flight each way.
    pub(super) capacity: usize,
    /// Most bytes a receive or send moves.
    pub(super) step: usize,
    /// Makes every step of random size and some polls pending for no reason.
    pub(super) erratic: bool,
}

impl Default for PipeOptions {
    fn default() -> Self {
        Self {
            capacity: 128 * 1024,
            step: usize::MAX,
            erratic: false,
        }
    }
}

#[derive(Default)]
struct Lane {
    bytes: VecDeque<u8>,
    everything: Vec<u8>,
    finished: bool,
    abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One end of an in-memory connection.
pub(super) struct PipeEnd {
    incoming: Rc<RefCell<Lane>>,
    outgoing: Rc<RefCell<Lane>>,
    options: PipeOptions,
    random: fastrand::Rng,
}

/// Reads what one end has sent so far, even after that end is gone.
pub(super) struct Tap(Rc<RefCell<Lane>>);

impl Tap {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.borrow().everything.clone()
    }
}

pub(super) fn pipe(options: PipeOptions) -> (PipeEnd, PipeEnd) {
    let (there, back) = (
        Rc::<RefCell<Lane>>::default(),
        Rc::<RefCell<Lane>>::default(),
    );
    let end = |incoming: &Rc<RefCell<Lane>>, outgoing: &Rc<RefCell<Lane>>, seed| PipeEnd {
        incoming: Rc::clone(incoming),
        outgoing: Rc::clone(outgoing),
        options,
        random: fastrand::Rng::with_seed(seed),
    };
    (end(&back, &there, 1), end(&there, &back, 2))
}

impl PipeEnd {
    pub(super) fn tap(&self) -> Tap {
        Tap(Rc::clone(&self.outgoing))
    }

    fn step(&mut self, cx: &Context<'_>) -> Option<usize> {
        if !self.options.erratic {
            return Some(self.options.step);
        }
        if self.random.u8(..) < 64 {
            cx.waker().wake_by_ref();
            return None;
        }
        Some(1 + self.random.usize(..self.options.step.min(40_000)))
    }
}

impl Transport for PipeEnd {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(step) = self.step(cx) else {
            return Poll::Pending;
        };
        let mut lane = self.incoming.borrow_mut();
        let count = lane.bytes.len().min(buffer.len()).min(step);
        if count == 0 {
            if lane.finished || buffer.is_empty() {
                return Poll::Ready(Ok(0));
            }
            lane.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        for (slot, byte) in buffer.iter_mut().zip(lane.bytes.drain(..count)) {
            *slot = byte;
        }
        if let Some(writer) = lane.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(step) = self.step(cx) else {
            return Poll::Pending;
        };
        let mut lane = self.outgoing.borrow_mut();
        if lane.finished || lane.abandoned {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = (self.options.capacity - lane.bytes.len()).min(step);
        if room == 0 {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = lane.bytes.len();
        for slice in slices {
            let left = room - (lane.bytes.len() - before);
            let part = &slice[..slice.len().min(left)];
            lane.bytes.extend(part);
            lane.everything.extend(part);
        }
        if let Some(reader) = lane.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(lane.bytes.len() - before))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut lane = self.outgoing.borrow_mut();
        lane.finished = true;
        if let Some(reader) = lane.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.finished = true;
        if let Some(reader) = outgoing.reader.take() {
            reader.wake();
        }
        drop(outgoing);
        let mut incoming = self.incoming.borrow_mut();
        incoming.abandoned = true;
        if let Some(writer) = incoming.writer.take() {
            writer.wake();
        }
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs futures to their ends, each as a task of its own; panics when all that are left wait for
/// something that cannot happen.
pub(super) fn run_all(mut tasks: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    let flags: Vec<_> = tasks
        .iter()
        .map(|_| Arc::new(Flag(AtomicBool::new(true))))
        .collect();
    let mut done = vec![false; tasks.len()];
    while !done.iter().all(|done| *done) {
        let mut progress = false;
        for (n, task) in tasks.iter_mut().enumerate() {
            if done[n] || !flags[n].0.swap(false, Ordering::Relaxed) {
                continue;
            }
            progress = true;
            let waker = Waker::from(Arc::clone(&flags[n]));
            done[n] = task
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready();
        }
        assert!(
            progress,
            "stalled: nobody will wake the tasks that still wait"
        );
    }
}

/// [`run_all`] for two futures with results, which live until both have ended.
pub(super) fn run_both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (None, None);
    run_all(vec![
        Box::pin(async { first = Some(a.await) }),
        Box::pin(async { second = Some(b.await) }),
    ]);
    (first.unwrap(), second.unwrap())
}

pub(super) fn identity(service_account: &str) -> Identity {
    Identity::new("cluster.local", "default", service_account)
}

pub(super) fn credentials(authority: &Authority, service_account: &str) -> Credentials {
    authority
        .credentials(
            &identity(service_account),
            TlsOptions::default(),
            SystemTime::now(),
        )
        .unwrap()
}

pub(super) fn expecting(service_accounts: &[&str]) -> Arc<[Identity]> {
    service_accounts.iter().map(|name| identity(name)).collect()
}
