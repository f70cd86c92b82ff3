//! What all interop tests share: a block of loopback addresses, roots, an application, and the checks
//! of bytes.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::loopback::Block;
use corelane_harness::pki::{Authority, Issued, Leaf};
use corelane_harness::requirements;
use tempfile::TempDir;

/// Port of the application, on the server's address.
pub(crate) const APP_PORT: u16 = 8_080;
/// Port of HBONE.
pub(crate) const HBONE_PORT: u16 = 15_008;
/// Port a client application connects to, on the client's address.
pub(crate) const ENTRY_PORT: u16 = 7_000;

/// Bytes of a large transfer, more than any window.
const LARGE: usize = 24 * 1024 * 1024;

/// Addresses, root and scratch folder of one test.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// The Envoy to start.
    pub(crate) envoy: PathBuf,
    /// Root of all good certificates.
    pub(crate) authority: Authority,
    /// Configuration and output of the processes.
    pub(crate) dir: TempDir,
    block: Block,
}

impl Mesh {
    /// `None` if there is no Envoy and none is required.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let envoy = requirements::envoy(test)?;
        let authority = Authority::new("interop root");
        Some(Self {
            envoy,
            authority,
            dir: requirements::scratch_dir(),
            block: Block::take(),
        })
    }

    /// Address of the client side's proxy.
    pub(crate) const fn client_ip(&self) -> Ipv4Addr {
        self.block.ip(2)
    }

    /// Address of the server side's proxy and of the application.
    pub(crate) const fn server_ip(&self) -> Ipv4Addr {
        self.block.ip(3)
    }

    /// Address of a third proxy between the two.
    pub(crate) const fn gateway_ip(&self) -> Ipv4Addr {
        self.block.ip(4)
    }

    /// Address of a service; nobody listens there.
    pub(crate) const fn service_ip(&self) -> Ipv4Addr {
        self.block.ip(5)
    }

    /// Where the application is.
    pub(crate) fn app_at(&self) -> SocketAddr {
        SocketAddr::from((self.server_ip(), APP_PORT))
    }

    /// Where the server side's proxy takes tunnels.
    pub(crate) fn hbone_at(&self) -> SocketAddr {
        SocketAddr::from((self.server_ip(), HBONE_PORT))
    }

    /// Where client applications connect to.
    pub(crate) fn entry_at(&self) -> SocketAddr {
        SocketAddr::from((self.client_ip(), ENTRY_PORT))
    }

    /// Starts the application.
    pub(crate) fn start_app(&self) -> Server {
        Server::start_here(IpAddr::V4(self.server_ip()), APP_PORT, apps::echo)
    }

    /// A good certificate.
    pub(crate) fn issue(&self, account: &str) -> Issued {
        self.authority.issue(&Leaf::for_account(account))
    }
}

/// Sends a small and a large request through `entry` and checks both echoes, then one on which the
/// client ends first and one on which bytes follow the answer.
#[track_caller]
pub(crate) fn check_bytes(entry: SocketAddr) {
    assert_eq!(apps::exchange(entry, b"small").unwrap(), b"small");
    let mut stream = apps::connect(entry).unwrap();
    for round in 0..20_u8 {
        assert_eq!(
            apps::round_trip(&mut stream, &[round; 100]).unwrap(),
            [round; 100]
        );
    }
    drop(stream);
    let mut request = vec![0; LARGE];
    fastrand::Rng::with_seed(LARGE as u64).fill(&mut request);
    let stream = apps::connect(entry).unwrap();
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&request).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut answer = Vec::new();
        (&stream).read_to_end(&mut answer).unwrap();
        answer
    });
    assert!(
        answer == request,
        "{} bytes came back, or changed",
        answer.len()
    );
}

/// A connection that must be refused: it ends without a byte, in order or by reset.
#[track_caller]
pub(crate) fn check_refused(entry: SocketAddr, app: &Server) {
    let accepted = app.accepted();
    let result = apps::exchange(entry, b"secret");
    assert!(
        result.as_ref().map_or_else(apps::is_close, Vec::is_empty),
        "{result:?}"
    );
    assert_eq!(app.accepted(), accepted, "the application was reached");
}

/// For `span`, short connections come and go beside one that stays; none may fail.
#[track_caller]
pub(crate) fn check_service_without_gap(entry: SocketAddr, span: Duration) {
    let mut staying: Option<TcpStream> = None;
    let mut held = 0_u32;
    clock::must_hold("service", span, || {
        let stream = staying.get_or_insert_with(|| apps::connect(entry).unwrap());
        let stays = apps::round_trip(stream, b"stays");
        let short = apps::exchange(entry, b"short");
        assert!(
            stays.as_ref().is_ok_and(|a| a == b"stays"),
            "after {held} rounds: {stays:?}"
        );
        assert!(
            short.as_ref().is_ok_and(|a| a == b"short"),
            "after {held} rounds: {short:?}"
        );
        held += 1;
        true
    });
}
