//! Received bytes that wait for their reader, so that small frames do not pile up inside `h2`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::stream::explain;
use super::tunnel::Shared;
use crate::hbone::stream::StreamError;

/// Parked frames below this are copied together; a slice would keep a whole read buffer alive.
const COALESCE_BYTES: usize = 4096;
/// Size at which a block of copied frames is closed.
const BLOCK_BYTES: usize = 16 * 1024;

/// Received bytes of one stream: in `h2`, or parked here so that small frames do not pile up there.
pub(super) struct RecvCell {
    shared: Rc<Shared>,
    state: RefCell<RecvState>,
}

struct RecvState {
    h2: h2::RecvStream,
    parked: VecDeque<Bytes>,
    block: BytesMut,
    end: Option<Result<(), StreamError>>,
    reader: Option<Waker>,
}

impl RecvState {
    fn next_parked(&mut self) -> Option<Bytes> {
        self.parked
            .pop_front()
            .or_else(|| (!self.block.is_empty()).then(|| self.block.split().freeze()))
    }

    fn close_block(&mut self) {
        if !self.block.is_empty() {
            self.parked.push_back(self.block.split().freeze());
        }
    }

    fn keep(&mut self, data: Bytes) {
        if data.len() >= COALESCE_BYTES {
            self.close_block();
            self.parked.push_back(data);
            return;
        }
        if self.block.len() + data.len() > BLOCK_BYTES {
            self.close_block();
        }
        self.block.extend_from_slice(&data);
    }
}

impl RecvCell {
    pub(super) fn new(shared: &Rc<Shared>, h2: h2::RecvStream) -> Rc<Self> {
        Rc::new(Self {
            shared: Rc::clone(shared),
            state: RefCell::new(RecvState {
                h2,
                parked: VecDeque::new(),
                block: BytesMut::new(),
                end: None,
                reader: None,
            }),
        })
    }

    /// Takes over what waits in `h2`. No credit is given for it, so the stream window bounds it.
    pub(super) fn park(&self) {
        let state = &mut *self.state.borrow_mut();
        let reader = state.reader.clone();
        let mut cx = Context::from_waker(reader.as_ref().unwrap_or(Waker::noop()));
        let mut news = false;
        while state.end.is_none() {
            match state.h2.poll_data(&mut cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(data))) => state.keep(data),
                Poll::Ready(Some(Err(error))) => {
                    state.end = Some(Err(explain(&self.shared, &error)));
                }
                Poll::Ready(None) => state.end = Some(Ok(())),
            }
            news = true;
        }
        if news && let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// The next bytes, parked ones first; `None` at the end. Never empty.
    pub(super) fn poll_data(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let state = &mut *self.state.borrow_mut();
        loop {
            if let Some(data) = state.next_parked() {
                return Poll::Ready(Ok(Some(data)));
            }
            if let Some(end) = &state.end {
                return Poll::Ready(end.clone().map(|()| None));
            }
            match state.h2.poll_data(cx) {
                Poll::Pending => {
                    match &mut state.reader {
                        Some(reader) => reader.clone_from(cx.waker()),
                        None => state.reader = Some(cx.waker().clone()),
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                Poll::Ready(Some(Ok(data))) => return Poll::Ready(Ok(Some(data))),
                Poll::Ready(Some(Err(error))) => {
                    state.end = Some(Err(explain(&self.shared, &error)));
                }
                Poll::Ready(None) => state.end = Some(Ok(())),
            }
        }
    }

    /// Gives the peer credit for these bytes.
    pub(super) fn forwarded(&self, bytes: usize) {
        let state = &mut *self.state.borrow_mut();
        // Fails only for more bytes than were received, which then have no credit to give.
        let _ = state.h2.flow_control().release_capacity(bytes);
    }
}

/// Puts the receiving side of a stream where the tunnel finds it.
pub(super) fn register(shared: &Rc<Shared>, recv: h2::RecvStream) -> Rc<RecvCell> {
    let id = recv.stream_id().as_u32();
    let cell = RecvCell::new(shared, recv);
    shared.register(id, &cell);
    cell
}

impl fmt::Debug for RecvCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvCell").finish_non_exhaustive()
    }
}
