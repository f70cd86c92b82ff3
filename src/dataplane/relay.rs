//! Stage 6: moves bytes both ways until both directions have ended, exactly counted.
//!
//! Each direction ends by itself with a half close. A reset or failure of one side ends both, and
//! the other side is reset too: a reset is never turned into a clean end.

mod copy;
mod pieces;
mod splice;
pub(super) mod tuned;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::pool::TunnelStream;
use super::rt::{self, First, Socket};
use super::slot::Slot;
use crate::decision::authorize::Permit;
use crate::hbone::ResetCode;
use crate::hbone::stream::{SendHalf, Stream, StreamError};
use crate::model::close::CloseReason;
use crate::telemetry::{OpenFlow, ShardCounters};
use copy::{Failure, Place};

/// One end of a relay.
#[derive(Debug)]
pub(crate) enum Side {
    /// A TCP connection.
    Tcp(Rc<Socket>),
    /// A stream in a tunnel we opened.
    Pooled(TunnelStream),
    /// A stream in a tunnel the peer opened.
    Accepted(Stream),
}

/// What may close a connection while it is relayed.
pub(crate) trait Closed: 'static {
    /// Completes when the connection must close.
    fn closed(&self) -> impl Future<Output = CloseReason>;

    /// Why a connection ended that seems to have ended for `reason`.
    fn reason(&self, reason: CloseReason) -> CloseReason {
        reason
    }
}

/// A connection that no policy is rechecked for.
impl Closed for () {
    fn closed(&self) -> impl Future<Output = CloseReason> {
        std::future::pending()
    }
}

/// A connection that is set up: what it holds until its relay has ended.
#[derive(Debug)]
pub(crate) struct Connection<C> {
    pub(crate) slot: Slot,
    pub(crate) flow: OpenFlow,
    pub(crate) closed: C,
}

/// Starts the task that relays between both sides until both directions ended or the connection must
/// close, and reports the end. Consumes the permit: what is not authorized cannot be relayed.
///
/// A task of its own, with room for its kind of relay and no more: what set the connection up ends, and
/// an idle connection does not hold its room. When the shard must end, both sides are reset.
pub(crate) fn start<C: Closed>(connection: Connection<C>, sides: (Side, Side), permit: Permit) {
    let Connection { slot, flow, closed } = connection;
    let slot = slot.relayed();
    let shard = &Rc::clone(slot.shard());
    let around = Connection { slot, flow, closed };
    // A panic drops both sides, which resets them.
    let on_panic = || {};
    match sides {
        (Side::Tcp(client), Side::Tcp(server)) => {
            shard.spawn(around.plain(client, server, permit), on_panic);
        }
        (Side::Tcp(client), Side::Pooled(tunnel)) => {
            shard.spawn(around.outbound(client, tunnel), on_panic);
        }
        (Side::Accepted(stream), Side::Tcp(server)) => {
            shard.spawn(around.inbound(stream, server), on_panic);
        }
        (Side::Pooled(_) | Side::Accepted(_), _) | (Side::Tcp(_), Side::Accepted(_)) => {
            let text = "a stream can only be relayed to a TCP connection";
            around.finish(CloseReason::Relay(text.to_owned()));
        }
    }
}

/// How a relay ended: by the shard's end, by what its connection waits for, or by itself.
type End = First<(), First<CloseReason, Result<(), Ended>>>;

// Blocks that capture, not `async fn`, which would hold each argument twice.
impl<C: Closed> Connection<C> {
    fn up(&self, bytes: u64) {
        self.flow.to_server(bytes);
        self.counters().relayed_bytes.add(bytes);
    }

    fn down(&self, bytes: u64) {
        self.flow.to_client(bytes);
        self.counters().relayed_bytes.add(bytes);
    }

    fn counters(&self) -> &ShardCounters {
        self.slot.shard().telemetry.counters()
    }

    fn ends(&self, relay: impl Future<Output = Result<(), Ended>>) -> impl Future<Output = End> {
        let force = &self.slot.shard().force;
        rt::race(force.wait(), rt::race(self.closed.closed(), relay))
    }

    fn finish(self, reason: CloseReason) {
        let reason = self.closed.reason(reason);
        self.flow.finish(&reason, rt::now());
    }

    fn plain(
        self,
        client: Rc<Socket>,
        server: Rc<Socket>,
        permit: Permit,
    ) -> impl Future<Output = ()> {
        let mut tcp = Tcp::new([client, server]);
        async move {
            let [client, server] = &tcp.sockets;
            let ended = self.ends(join(
                copy::tcp_to_tcp(client, server, &permit, |n| self.up(n)),
                copy::tcp_to_tcp(server, client, &permit, |n| self.down(n)),
            ));
            let Some((reason, clean)) = outcome(ended.await) else {
                return;
            };
            tcp.ended(clean);
            self.finish(reason);
        }
    }

    /// The lease goes back to the pool with the stream.
    fn outbound(self, client: Rc<Socket>, tunnel: TunnelStream) -> impl Future<Output = ()> {
        let TunnelStream { stream, lease } = tunnel;
        let mut tcp = Tcp::new([client]);
        let (mut recv, mut send) = stream.split();
        async move {
            let [client] = &tcp.sockets;
            let ended = self.ends(join(
                copy::tcp_to_tunnel(client, &mut send, false, |n| self.up(n)),
                copy::tunnel_to_tcp(&mut recv, client, |n| self.down(n)),
            ));
            let Some((reason, clean)) = outcome(ended.await) else {
                return;
            };
            tcp.ended(clean);
            reset_stream(&mut send, &reason, clean).await;
            self.finish(if lease.is_revoked() {
                CloseReason::Revoked
            } else {
                reason
            });
        }
    }

    fn inbound(self, stream: Stream, server: Rc<Socket>) -> impl Future<Output = ()> {
        let mut tcp = Tcp::new([server]);
        let (mut recv, mut send) = stream.split();
        async move {
            let [server] = &tcp.sockets;
            let ended = self.ends(join(
                copy::tunnel_to_tcp(&mut recv, server, |n| self.up(n)),
                // Connected this moment: most servers speak after their client.
                copy::tcp_to_tunnel(server, &mut send, true, |n| self.down(n)),
            ));
            let Some((reason, clean)) = outcome(ended.await) else {
                return;
            };
            tcp.ended(clean);
            reset_stream(&mut send, &reason, clean).await;
            self.finish(reason);
        }
    }
}

/// Tells the peer of a stream that did not end in order.
async fn reset_stream(send: &mut SendHalf, reason: &CloseReason, clean: bool) {
    if clean {
        return;
    }
    // Bytes already handed to the tunnel travel before the reset.
    rt::yield_now().await;
    let failed = matches!(
        reason,
        CloseReason::ClientReset | CloseReason::ServerReset | CloseReason::Relay(_)
    );
    send.reset(if failed {
        ResetCode::ConnectError
    } else {
        ResetCode::Cancel
    });
}

/// TCP connections that are reset unless their relay ended in order: also when the relay is dropped or
/// panics, because what was relayed so far must not look complete.
struct Tcp<const N: usize> {
    sockets: [Rc<Socket>; N],
    clean: bool,
}

impl<const N: usize> Tcp<N> {
    const fn new(sockets: [Rc<Socket>; N]) -> Self {
        Self {
            sockets,
            clean: false,
        }
    }

    const fn ended(&mut self, clean: bool) {
        self.clean = clean;
    }
}

impl<const N: usize> Drop for Tcp<N> {
    fn drop(&mut self) {
        if !self.clean {
            for socket in &self.sockets {
                socket.reset_on_close();
            }
        }
    }
}

/// Result of one direction, told by which way it went.
enum Ended {
    Up(Failure),
    Down(Failure),
}

pin_project! {
    /// Runs both directions; the first failure ends both.
    struct Join<U, D> {
        #[pin]
        up: U,
        #[pin]
        down: D,
        up_ended: bool,
        down_ended: bool,
    }
}

const fn join<U, D>(up: U, down: D) -> Join<U, D> {
    Join {
        up,
        down,
        up_ended: false,
        down_ended: false,
    }
}

impl<U, D> Future for Join<U, D>
where
    U: Future<Output = Result<(), Failure>>,
    D: Future<Output = Result<(), Failure>>,
{
    type Output = Result<(), Ended>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if !*this.up_ended
            && let Poll::Ready(result) = this.up.poll(cx)
        {
            *this.up_ended = true;
            if let Err(failure) = result {
                return Poll::Ready(Err(Ended::Up(failure)));
            }
        }
        if !*this.down_ended
            && let Poll::Ready(result) = this.down.poll(cx)
        {
            *this.down_ended = true;
            if let Err(failure) = result {
                return Poll::Ready(Err(Ended::Down(failure)));
            }
        }
        if *this.up_ended && *this.down_ended {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

/// Reason, and whether both sides ended in order. `None`: the shard ends, and everything is dropped.
fn outcome(end: End) -> Option<(CloseReason, bool)> {
    let First::Right(end) = end else { return None };
    Some(match end {
        First::Left(reason) => (reason, false),
        First::Right(Ok(())) => (CloseReason::Complete, true),
        First::Right(Err(Ended::Up(failure))) => (up_reason(&failure), false),
        First::Right(Err(Ended::Down(failure))) => (down_reason(&failure), false),
    })
}

fn up_reason(failure: &Failure) -> CloseReason {
    match (failure.place, failure.is_reset()) {
        (Place::Source, true) => CloseReason::ClientReset,
        (Place::Sink, true) => CloseReason::ServerReset,
        (Place::Source, false) => CloseReason::Relay(format!("send: from the client: {failure}")),
        (Place::Sink, false) => CloseReason::Relay(format!("send: to the server: {failure}")),
    }
}

fn down_reason(failure: &Failure) -> CloseReason {
    match (failure.place, failure.is_reset()) {
        (Place::Source, true) => CloseReason::ServerReset,
        (Place::Sink, true) => CloseReason::ClientReset,
        (Place::Source, false) => {
            CloseReason::Relay(format!("receive: from the server: {failure}"))
        }
        (Place::Sink, false) => CloseReason::Relay(format!("receive: to the client: {failure}")),
    }
}

/// Sends all of `bytes`. Dropping the future leaves an unknown part sent.
pub(crate) async fn send_all(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.try_send(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if copy::is_transient(&error) => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl From<StreamError> for copy::Cause {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

/// Bytes each kind of relay holds while it runs: plain, outbound, inbound.
#[cfg(test)]
pub(super) fn sizes<C: Closed>() -> [usize; 3] {
    fn size<C, A, B, F: Future>(_: impl Fn(Connection<C>, A, B) -> F) -> usize {
        size_of::<F>()
    }
    [
        size(|connection: Connection<C>, client, server| {
            connection.plain(client, server, Permit::outbound())
        }),
        size(Connection::<C>::outbound),
        size(Connection::<C>::inbound),
    ]
}
