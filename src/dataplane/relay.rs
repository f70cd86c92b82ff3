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
use super::rt::{self, First, Signal, Socket};
use super::shard::Shard;
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

/// Relays between both sides until both directions ended or `close` fires. Consumes the permit:
/// what is not authorized cannot be relayed.
///
/// Dropping the future resets both sides.
pub(crate) async fn run(
    shard: &Shard,
    sides: (Side, Side),
    permit: Permit,
    flow: &OpenFlow,
    close: &Signal<CloseReason>,
) -> CloseReason {
    let around = Around {
        counters: shard.telemetry.counters(),
        flow,
        close,
    };
    around.counters.relays_open.add(1);
    let _open = Open(around.counters);
    // Boxed: each kind of relay then holds its own room, not that of the largest.
    match sides {
        (Side::Tcp(client), Side::Tcp(server)) => {
            Box::pin(around.plain(client, server, permit)).await
        }
        (Side::Tcp(client), Side::Pooled(tunnel)) => {
            Box::pin(around.outbound(client, tunnel)).await
        }
        (Side::Accepted(stream), Side::Tcp(server)) => {
            Box::pin(around.inbound(stream, server)).await
        }
        (Side::Pooled(_) | Side::Accepted(_), _) | (Side::Tcp(_), Side::Accepted(_)) => {
            CloseReason::Relay("a stream can only be relayed to a TCP connection".to_owned())
        }
    }
}

/// What surrounds a relay: where it counts, and what may end it.
#[derive(Clone, Copy)]
struct Around<'a> {
    counters: &'a ShardCounters,
    flow: &'a OpenFlow,
    close: &'a Signal<CloseReason>,
}

impl Around<'_> {
    fn up(self, bytes: u64) {
        self.flow.to_server(bytes);
        self.counters.relayed_bytes.add(bytes);
    }

    fn down(self, bytes: u64) {
        self.flow.to_client(bytes);
        self.counters.relayed_bytes.add(bytes);
    }

    async fn plain(self, client: Rc<Socket>, server: Rc<Socket>, permit: Permit) -> CloseReason {
        let (mut client, mut server) = (TcpSide::new(client), TcpSide::new(server));
        let relay = join(
            copy::tcp_to_tcp(&client.socket, &server.socket, &permit, |n| self.up(n)),
            copy::tcp_to_tcp(&server.socket, &client.socket, &permit, |n| self.down(n)),
        );
        let (reason, clean) = outcome(rt::race(self.close.wait(), relay).await);
        client.clean = clean;
        server.clean = clean;
        reason
    }

    /// The lease goes back to the pool with the stream.
    async fn outbound(self, client: Rc<Socket>, tunnel: TunnelStream) -> CloseReason {
        let TunnelStream {
            stream,
            lease: _lease,
        } = tunnel;
        let mut client = TcpSide::new(client);
        let (mut recv, mut send) = stream.split();
        let relay = join(
            copy::tcp_to_tunnel(&client.socket, &mut send, false, |n| self.up(n)),
            copy::tunnel_to_tcp(&mut recv, &client.socket, |n| self.down(n)),
        );
        let (reason, clean) = outcome(rt::race(self.close.wait(), relay).await);
        client.clean = clean;
        reset_stream(&mut send, &reason, clean).await;
        reason
    }

    async fn inbound(self, stream: Stream, server: Rc<Socket>) -> CloseReason {
        let mut server = TcpSide::new(server);
        let (mut recv, mut send) = stream.split();
        let relay = join(
            copy::tunnel_to_tcp(&mut recv, &server.socket, |n| self.up(n)),
            // Connected this moment: most servers speak after their client.
            copy::tcp_to_tunnel(&server.socket, &mut send, true, |n| self.down(n)),
        );
        let (reason, clean) = outcome(rt::race(self.close.wait(), relay).await);
        server.clean = clean;
        reset_stream(&mut send, &reason, clean).await;
        reason
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

/// An open relay, counted however it ends.
struct Open<'a>(&'a ShardCounters);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.relays_open.add(-1);
    }
}

/// A TCP connection that is reset unless its relay ended in order: also when the relay is dropped or
/// panics, because what was relayed so far must not look complete.
struct TcpSide {
    socket: Rc<Socket>,
    clean: bool,
}

impl TcpSide {
    const fn new(socket: Rc<Socket>) -> Self {
        Self {
            socket,
            clean: false,
        }
    }
}

impl Drop for TcpSide {
    fn drop(&mut self) {
        if !self.clean {
            self.socket.reset_on_close();
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

/// Reason, and whether both sides ended in order.
fn outcome(first: First<CloseReason, Result<(), Ended>>) -> (CloseReason, bool) {
    match first {
        First::Left(reason) => (reason, false),
        First::Right(Ok(())) => (CloseReason::Complete, true),
        First::Right(Err(Ended::Up(failure))) => (up_reason(&failure), false),
        First::Right(Err(Ended::Down(failure))) => (down_reason(&failure), false),
    }
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
pub(super) fn sizes() -> [usize; 3] {
    fn size<A, B, F: Future>(_: impl Fn(Around<'static>, A, B) -> F) -> usize {
        size_of::<F>()
    }
    [
        size(|around, client, server| around.plain(client, server, Permit::outbound())),
        size(Around::outbound),
        size(Around::inbound),
    ]
}
