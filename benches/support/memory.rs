//! Two ends of a connection in memory, with and without TLS.

#![expect(
    clippy::expect_used,
    reason = "a bench that cannot be set up has nothing to say"
)]

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use corelane::model::identity::Identity;
use corelane::tls::credentials::Credentials;
use corelane::tls::dev_pki::Authority;
use corelane::tls::handshake::{accept, connect};
use corelane::tls::{Records, TlsOptions, TlsStream};
use corelane::transport::Transport;

/// Bytes under way in one direction.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) bytes: Vec<u8>,
    taken: usize,
}

pub(crate) type Shared = Rc<RefCell<Lane>>;

/// One end of a connection in memory, as cheap as can be.
pub(crate) struct Memory {
    incoming: Shared,
    outgoing: Shared,
}

impl Transport for Memory {
    fn poll_recv(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut lane = self.incoming.borrow_mut();
        let rest = &lane.bytes[lane.taken..];
        if rest.is_empty() {
            return Poll::Pending;
        }
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        lane.taken += count;
        if lane.taken == lane.bytes.len() {
            lane.bytes.clear();
            lane.taken = 0;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_send(
        &mut self,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut lane = self.outgoing.borrow_mut();
        for slice in slices {
            lane.bytes.extend_from_slice(slice);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Both ends of a session and the lane from the first to the second.
pub(crate) struct Pair {
    pub(crate) sender: TlsStream<Memory>,
    pub(crate) receiver: TlsStream<Memory>,
    pub(crate) lane: Shared,
}

/// Certificates of a client and a server.
pub(crate) struct Parties {
    client: Credentials,
    server: Credentials,
    expected: Arc<[Identity]>,
}

impl Parties {
    pub(crate) fn new(records: Records) -> Self {
        let now = SystemTime::now();
        let identity = |name: &str| Identity::new("cluster.local", "default", name);
        let options = TlsOptions {
            records,
            ..TlsOptions::default()
        };
        let authority = Authority::new("bench", now).expect("a key pair");
        let credentials = |name: &str| {
            let made = authority.credentials(&identity(name), options, now);
            made.expect("a certificate")
        };
        Self {
            client: credentials("client"),
            server: credentials("server"),
            expected: [identity("server")].into(),
        }
    }
}

/// Both ends after a full handshake.
pub(crate) fn shake_hands(parties: &Parties) -> Pair {
    let (lane, back) = (Shared::default(), Shared::default());
    let near = Memory {
        incoming: Rc::clone(&back),
        outgoing: Rc::clone(&lane),
    };
    let far = Memory {
        incoming: Rc::clone(&lane),
        outgoing: back,
    };
    let mut connecting = pin!(connect(near, &parties.client, &parties.expected));
    let mut accepting = pin!(accept(far, &parties.server));
    let (mut sender, mut receiver) = (None, None);
    let mut cx = context();
    while sender.is_none() || receiver.is_none() {
        if sender.is_none()
            && let Poll::Ready(done) = connecting.as_mut().poll(&mut cx)
        {
            sender = Some(done.expect("a client").0);
        }
        if receiver.is_none()
            && let Poll::Ready(done) = accepting.as_mut().poll(&mut cx)
        {
            receiver = Some(done.expect("a server").0);
        }
    }
    Pair {
        sender: sender.expect("connected"),
        receiver: receiver.expect("accepted"),
        lane,
    }
}

pub(crate) fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
