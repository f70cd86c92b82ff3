//! Crosses to another network: a tunnel of the connection's own inside a stream to that network's
//! gateway (spec: hbone.md 14).
//!
//! The gateway forwards what it cannot read. Who answers behind it proves so in a handshake of its own,
//! and only names that the service vouches for are accepted there.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use crate::dataplane::pool::{self, Gauge, Key, Lease, Tunnel, TunnelStream, Up};
use crate::dataplane::revocation;
use crate::dataplane::rt::{self, First};
use crate::dataplane::shard::Shard;
use crate::hbone::connect::ConnectRequest;
use crate::hbone::stream::Stream;
use crate::model::baggage::Baggage;
use crate::model::close::CloseReason;
use crate::model::identity::Identity;
use crate::telemetry::counters::Role;
use crate::telemetry::flow::{Flow, OpenFlow, Party, ShardTelemetry};
use crate::transport::Transport;

/// Which way a connection crosses.
pub(super) struct Crossing<'a> {
    /// The tunnel to the gateway.
    pub(super) gateway: &'a Key,
    /// Who may answer behind it; empty accepts nobody.
    pub(super) expected: &'a Arc<[Identity]>,
    /// What both tunnels are asked for.
    pub(super) request: ConnectRequest,
}

/// A connection that is counted only once both tunnels are up or have failed, because only then is known
/// who answers (spec: telemetry 2.1). Dropped before, it is counted as cut by drain.
pub(super) struct Uncounted<'a> {
    telemetry: &'a Rc<ShardTelemetry>,
    flow: Flow,
    at: Instant,
    counted: bool,
}

impl<'a> Uncounted<'a> {
    pub(super) fn new(telemetry: &'a Rc<ShardTelemetry>, flow: Flow, at: Instant) -> Self {
        Self {
            telemetry,
            flow,
            at,
            counted: false,
        }
    }

    fn count(&mut self) -> OpenFlow {
        self.counted = true;
        self.telemetry.opened(self.flow.clone(), self.at)
    }
}

impl Drop for Uncounted<'_> {
    fn drop(&mut self) {
        if !self.counted {
            drop(self.count());
        }
    }
}

/// Opens a stream to the gateway, a tunnel inside it, and the connection's stream inside that.
///
/// Dropping the future resets what is open.
pub(super) async fn open(
    shard: &Rc<Shard>,
    crossing: Crossing<'_>,
    mut uncounted: Uncounted<'_>,
) -> (OpenFlow, Result<TunnelStream, CloseReason>) {
    let crossed = cross(shard, crossing).await;
    let stream = crossed.map(|crossed| {
        crossed.end.tell(&mut uncounted.flow.destination);
        crossed.stream
    });
    (uncounted.count(), stream)
}

/// A connection's stream in the inner tunnel, and who answered there.
struct Crossed {
    /// Its lease is that of the inner tunnel.
    stream: TunnelStream,
    end: FarEnd,
}

/// Who answered in the inner tunnel.
struct FarEnd {
    identity: Option<Arc<Identity>>,
    /// `None`: it could not be read.
    baggage: Option<Baggage>,
}

impl FarEnd {
    /// Replaces what is known of the destination by what the far side told and proved (spec: telemetry
    /// 2.2, step 5).
    fn tell(self, destination: &mut Party) {
        destination.identity = self.identity;
        destination.baggage = self.baggage.map(Arc::new);
    }
}

async fn cross(shard: &Rc<Shard>, crossing: Crossing<'_>) -> Result<Crossed, CloseReason> {
    let Crossing {
        gateway,
        expected,
        mut request,
    } = crossing;
    let address = gateway.next_hop;
    if expected.is_empty() {
        return Err(CloseReason::Tls(format!(
            "nobody is accepted behind the gateway {address}: the service has no subjectAltNames"
        )));
    }
    let opened = pool::open(shard, gateway, &request).await;
    let (TunnelStream { stream, lease }, _) =
        opened.map_err(|reason| Layer::Outer(address).of(reason))?;
    let outer = Rc::new(Outer {
        stream: RefCell::new(stream),
        lease,
        ended: Cell::new(false),
    });
    request.forwarded_network = Some(shard.config.network.to_string());
    match enter(shard, (gateway, expected), &outer, &request).await {
        Ok(crossed) => Ok(crossed),
        Err(_) if outer.lease.is_revoked() => Err(CloseReason::Revoked),
        Err(reason) => Err(Layer::Inner(address).of(reason)),
    }
}

/// Brings the inner tunnel up and opens its only stream.
async fn enter(
    shard: &Rc<Shard>,
    (gateway, expected): (&Key, &Arc<[Identity]>),
    outer: &Rc<Outer>,
    request: &ConnectRequest,
) -> Result<Crossed, CloseReason> {
    let credentials = shard.credentials(&gateway.source).await?;
    let io = OuterIo(Rc::clone(outer));
    let whom = (gateway.next_hop, expected);
    let up = match pool::shake_hands(shard, io, &credentials, whom).await {
        Ok(up) => up,
        Err(reason) => {
            let counters = shard.telemetry.counters();
            counters.tunnels_client_failed.add(1);
            // The application need not wait for it.
            let (ours, outer) = (Rc::clone(shard), Rc::clone(outer));
            shard.spawn(async move { outer.part(&ours).await }, || {});
            return Err(reason);
        }
    };
    let (opener, identity) = (up.opener.clone(), up.peer.identity.clone());
    let tunnel = Tunnel::new();
    // Before it comes up: without a stream to wait for it would close at once.
    let lease = Lease::take(&tunnel);
    tunnel.spend();
    tunnel.came_up(opener.clone());
    let task = Inner {
        shard: Rc::clone(shard),
        tunnel,
        outer: Rc::clone(outer),
    };
    shard.spawn(task.run(up), || {});
    let limit = shard.config.timeouts.connect_answer;
    match rt::within(limit, opener.open(request)).await {
        Some(Ok((response, stream))) => {
            shard.telemetry.counters().streams_client_opened.add(1);
            let end = FarEnd {
                identity,
                baggage: response.baggage,
            };
            let stream = TunnelStream { stream, lease };
            Ok(Crossed { stream, end })
        }
        Some(Err(_)) if lease.is_revoked() => Err(CloseReason::Revoked),
        Some(Err(error)) => Err(pool::not_opened(&error)),
        None => Err(pool::unanswered(shard, gateway.next_hop)),
    }
}

/// The inner tunnel's task, and what it keeps until the end.
struct Inner {
    shard: Rc<Shard>,
    tunnel: Rc<Tunnel>,
    outer: Rc<Outer>,
}

impl Inner {
    /// Runs the tunnel until its stream has ended or it must end at once.
    async fn run(self, up: Up<OuterIo>) {
        let Up {
            driver,
            life,
            revocable,
            ..
        } = up;
        let _open = Gauge::raise(&self.shard);
        let cut = async {
            let revoked = revocation::revoked(&self.shard, revocable.as_ref(), Role::Client);
            if let First::Right(()) = rt::race(life.ended(), revoked).await {
                self.tunnel.revoke();
            }
        };
        let end = rt::race(driver, cut);
        match rt::race(self.shard.force.wait(), end).await {
            First::Right(First::Left(Ok(()))) => self.outer.part(&self.shard).await,
            First::Right(First::Left(Err(error))) => {
                tracing::debug!(target: "corelane::across", %error, "inner tunnel ended");
                // Its stream learns of the end after this task, and why by its lease.
                if self.outer.lease.is_revoked() {
                    self.tunnel.revoke();
                }
            }
            First::Left(()) | First::Right(First::Right(())) => {}
        }
    }
}

/// The stream to the gateway and its share of the outer tunnel.
struct Outer {
    stream: RefCell<Stream>,
    lease: Lease,
    /// Our side of the stream has ended in order.
    ended: Cell<bool>,
}

impl Outer {
    /// Waits for the gateway's end of the stream after ours. Dropped before, the stream would be reset,
    /// and with it our last words on their way to the gateway. The node behind it ends its side once it
    /// has read them; one that has not after as long as a PING may take will not.
    async fn part(&self, shard: &Shard) {
        if !self.ended.get() {
            return;
        }
        let mut rest = [0; 256];
        let end = poll_fn(|cx| {
            // Ends: the stream holds no more than its window.
            while ready!(self.stream.borrow_mut().poll_recv(cx, &mut rest)).is_ok_and(|n| n > 0) {}
            Poll::Ready(())
        });
        let patience = rt::within(shard.config.timeouts.ping, end);
        rt::race(shard.force.wait(), patience).await;
    }
}

/// [`Outer`] as what the inner tunnel runs on. Its errors say that they are the outer tunnel's.
struct OuterIo(Rc<Outer>);

impl OuterIo {
    fn poll<R>(
        &self,
        poll: impl FnOnce(&mut Stream) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        poll(&mut self.0.stream.borrow_mut())
            .map_err(|error| io::Error::new(error.kind(), format!("outer tunnel: {error}")))
    }
}

impl Transport for OuterIo {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_recv(cx, buffer))
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_send(cx, slices))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = ready!(self.poll(|stream| stream.poll_close(cx)));
        self.0.ended.set(ended.is_ok());
        Poll::Ready(ended)
    }
}

/// Which of both tunnels failed; the address is the gateway's.
#[derive(Clone, Copy, Debug)]
enum Layer {
    Outer(SocketAddr),
    Inner(SocketAddr),
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outer(gateway) => write!(f, "outer tunnel, to the gateway {gateway}"),
            Self::Inner(gateway) => write!(f, "inner tunnel, through the gateway {gateway}"),
        }
    }
}

impl Layer {
    /// The reason with the layer behind its text: in front the texts stay what they are elsewhere.
    fn of(self, reason: CloseReason) -> CloseReason {
        let told = |why: String| format!("{why} ({self})");
        match reason {
            CloseReason::Connect(why) => CloseReason::Connect(told(why)),
            CloseReason::ConnectTimeout(why) => CloseReason::ConnectTimeout(told(why)),
            CloseReason::Tls(why) => CloseReason::Tls(told(why)),
            CloseReason::Http2(why) => CloseReason::Http2(told(why)),
            CloseReason::Status(why) => CloseReason::Status(told(why)),
            CloseReason::Limit(why) => CloseReason::Limit(told(why)),
            // Ours, or of no layer.
            reason @ (CloseReason::Complete
            | CloseReason::ClientReset
            | CloseReason::ServerReset
            | CloseReason::Denied(_)
            | CloseReason::PolicyChange(_)
            | CloseReason::Revoked
            | CloseReason::Drain
            | CloseReason::Dial(_)
            | CloseReason::Identity(_)
            | CloseReason::Route(_)
            | CloseReason::Relay(_)
            | CloseReason::Panic) => reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_its_beginning_and_gets_the_layer_and_other_reasons_stay() {
        let gateway = "10.0.0.9:15008".parse().unwrap();
        let status = || CloseReason::Status("401 Unauthorized".to_owned());
        for (layer, text) in [
            (
                Layer::Outer(gateway),
                "http status: 401 Unauthorized (outer tunnel, to the gateway 10.0.0.9:15008)",
            ),
            (
                Layer::Inner(gateway),
                "http status: 401 Unauthorized (inner tunnel, through the gateway 10.0.0.9:15008)",
            ),
        ] {
            let told = layer.of(status());
            assert_eq!(told.to_string(), text);
            assert_eq!(told.flag(), status().flag());
            for reason in [
                CloseReason::Revoked,
                CloseReason::Drain,
                CloseReason::Identity("not ready".to_owned()),
            ] {
                assert_eq!(layer.of(reason.clone()), reason);
            }
        }
    }

    #[test]
    fn the_far_side_is_told_by_its_answer_and_proved_by_its_certificate() {
        let identity = |account: &str| {
            let text = format!("spiffe://cluster.local/ns/default/sa/{account}");
            Some(Arc::new(text.parse::<Identity>().unwrap()))
        };
        // An answer without baggage blanks the record; one that cannot be read leaves it.
        for (baggage, shown) in [
            (Some(Baggage::default()), Some(Arc::default())),
            (None, None),
        ] {
            let end = FarEnd {
                identity: identity("server"),
                baggage,
            };
            let mut destination = Party {
                workload: Some(Arc::default()),
                identity: identity("gateway"),
                baggage: None,
            };
            end.tell(&mut destination);
            assert_eq!(destination.identity, identity("server"));
            assert_eq!(destination.baggage, shown);
            assert!(destination.workload.is_some());
        }
    }
}
