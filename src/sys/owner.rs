//! Who owns a local TCP socket: its user and control group, asked of the kernel (sock_diag(7)).
//!
//! The kernel answers while it takes the question, so nothing waits. Asking takes 10 us in a program
//! without optimization (`asking_takes_microseconds`, 100,000 times on loopback, other work on both CPUs).

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `INET_DIAG_CGROUP_ID` of linux/inet_diag.h, since Linux 5.7.
const CGROUP_ID: u16 = 21;

/// Header of a netlink message.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`.
const QUESTION: usize = 56;
/// `struct inet_diag_msg`.
const ANSWER: usize = 72;
/// Room for an answer: it has a dozen small attributes.
const ANSWER_BYTES_MAX: usize = 4_096;
/// Answers to questions that were given up.
const STALE_MAX: usize = 16;

/// Who holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its user.
    pub uid: u32,
    /// Number of the control group (v2) in which the socket was made; `None` before Linux 5.7.
    pub cgroup: Option<u64>,
}

/// Asks the kernel about the sockets of one network namespace.
#[derive(Debug)]
pub struct SocketOwners {
    netlink: OwnedFd,
    sequence: Cell<u32>,
}

impl SocketOwners {
    /// For the network namespace of the calling thread.
    ///
    /// # Errors
    /// Of socket(2) and connect(2).
    pub fn open() -> io::Result<Self> {
        let netlink = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(SOCK_DIAG),
        )?;
        // Connected to the kernel, it takes messages of nobody else (netlink(7)).
        connect(&netlink, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self {
            netlink,
            sequence: Cell::new(0),
        })
    }

    /// Who holds the TCP socket with these ends; `None` when there is none, or when no process holds it
    /// any more. The kernel books such sockets on user 0, so they must not be mistaken for one of root.
    ///
    /// # Errors
    /// Of send(2) and recv(2), and what the kernel answers.
    pub fn of(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Owner>> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let question = question(local, remote, sequence);
        send(&self.netlink, &question, SendFlags::NOSIGNAL)?;
        let mut buffer = [0; ANSWER_BYTES_MAX];
        for _ in 0..STALE_MAX {
            let (length, _) = recv(&self.netlink, &mut buffer, RecvFlags::DONTWAIT)?;
            if let Some(answer) = answer(&buffer[..length], sequence) {
                let owner = answer?.filter(|found| found.ports == (local.port(), remote.port()));
                return Ok(owner.map(|found| found.owner));
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn question(local: SocketAddr, remote: SocketAddr, sequence: u32) -> [u8; HEADER + QUESTION] {
    let mut bytes = Writer::default();
    let length = u32::try_from(HEADER + QUESTION).unwrap_or_default();
    bytes.put(&length.to_ne_bytes());
    bytes.put(&BY_FAMILY.to_ne_bytes());
    bytes.put(&REQUEST.to_ne_bytes());
    bytes.put(&sequence.to_ne_bytes());
    bytes.put(&[0; 4]);
    // A socket of family IPv6 that talks IPv4 is found under IPv4.
    let (local_ip, remote_ip) = (local.ip().to_canonical(), remote.ip().to_canonical());
    let family = if local_ip.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let family = u8::try_from(family.as_raw()).unwrap_or_default();
    bytes.put(&[family, IPPROTO_TCP, 0, 0]);
    // Every state.
    bytes.put(&u32::MAX.to_ne_bytes());
    bytes.put(&local.port().to_be_bytes());
    bytes.put(&remote.port().to_be_bytes());
    bytes.put(&octets(local_ip));
    bytes.put(&octets(remote_ip));
    // Any interface, no cookie.
    bytes.put(&0_u32.to_ne_bytes());
    bytes.put(&u64::MAX.to_ne_bytes());
    bytes.0
}

const IPPROTO_TCP: u8 = 6;

struct Writer([u8; HEADER + QUESTION], usize);

impl Default for Writer {
    fn default() -> Self {
        Self([0; HEADER + QUESTION], 0)
    }
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.0[self.1..][..bytes.len()].copy_from_slice(bytes);
        self.1 += bytes.len();
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    let mut all = [0; 16];
    match ip {
        IpAddr::V4(ip) => all[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => all = ip.octets(),
    }
    all
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    owner: Owner,
    /// Local and remote; a listener has remote port 0 and is found where no connection is.
    ports: (u16, u16),
}

/// `None`: the answer to another question.
fn answer(message: &[u8], sequence: u32) -> Option<io::Result<Option<Found>>> {
    let malformed = || Some(Err(io::ErrorKind::InvalidData.into()));
    let (Some(kind), Some(answered)) = (u16_at(message, 4), u32_at(message, 8)) else {
        return malformed();
    };
    if answered != sequence {
        return None;
    }
    let Some(body) = message.get(HEADER..) else {
        return malformed();
    };
    if kind == ERROR {
        let Some(code) = u32_at(body, 0) else {
            return malformed();
        };
        let error = io::Error::from_raw_os_error(code.cast_signed().wrapping_neg());
        let absent = error.kind() == io::ErrorKind::NotFound;
        return Some(if absent { Ok(None) } else { Err(error) });
    }
    match found(body) {
        Some(found) if kind == BY_FAMILY => Some(Ok(found)),
        _ => malformed(),
    }
}

/// `None`: too short. Some(None): a socket that no process holds.
fn found(body: &[u8]) -> Option<Option<Found>> {
    let (uid, inode) = (u32_at(body, 64)?, u32_at(body, 68)?);
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let found = Found {
        owner: Owner {
            uid,
            cgroup: cgroup(body.get(ANSWER..)?),
        },
        ports: (port(4)?, port(6)?),
    };
    Some((inode != 0).then_some(found))
}

fn cgroup(mut attributes: &[u8]) -> Option<u64> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if u16_at(attributes, 2)? == CGROUP_ID {
            return Some(u64::from_ne_bytes(value.try_into().ok()?));
        }
        // Attributes begin at multiples of four (netlink(7)).
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};

    use super::*;

    fn own() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn both_ends_of_a_local_connection_are_found_with_their_user() {
        let owners = SocketOwners::open().unwrap();
        for ip in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let to = listener.local_addr().unwrap();
            let client = TcpStream::connect(to).unwrap();
            let from = client.local_addr().unwrap();
            let (server, _) = listener.accept().unwrap();
            for (local, remote) in [(from, to), (to, from)] {
                let owner = owners.of(local, remote).unwrap().unwrap();
                assert_eq!(owner.uid, own(), "{local} {remote}");
                assert!(owner.cgroup.is_some(), "this kernel is newer than 5.7");
            }
            drop(server);
        }
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_one() {
        let owners = SocketOwners::open().unwrap();
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let client = TcpStream::connect((mapped, port)).unwrap();
        let from = client.local_addr().unwrap();
        assert!(from.is_ipv6());
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(mapped)] {
            let from = SocketAddr::new(ip, from.port());
            let to = SocketAddr::new(ip, port);
            assert_eq!(owners.of(from, to).unwrap().unwrap().uid, own());
        }
    }

    #[test]
    fn what_is_not_there_or_held_by_nobody_has_no_owner() {
        let owners = SocketOwners::open().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let absent = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert_eq!(owners.of(absent, to).unwrap(), None);
        assert_eq!(
            owners.of(to, absent).unwrap(),
            None,
            "a listener is no connection"
        );
        let client = TcpStream::connect(to).unwrap();
        let from = client.local_addr().unwrap();
        let (server, _) = listener.accept().unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(owners.of(from, to).unwrap().is_some(), "half closed");
        drop(client);
        assert_eq!(owners.of(from, to).unwrap(), None, "closed");
        drop(server);
    }

    #[test]
    fn answers_that_are_cut_or_strange_are_errors_and_stale_ones_are_skipped() {
        let mut whole = vec![0; HEADER + ANSWER];
        whole[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        whole[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        whole[HEADER + 64..][..4].copy_from_slice(&1_000_u32.to_ne_bytes());
        whole[HEADER + 68] = 1;
        let owner = |cgroup| Owner { uid: 1_000, cgroup };
        let found = answer(&whole, 7).unwrap().unwrap().unwrap();
        assert_eq!(found.owner, owner(None));
        assert!(answer(&whole, 8).is_none());
        for length in 0..whole.len() {
            let cut = answer(&whole[..length], 7);
            assert!(cut.is_some_and(|cut| cut.is_err()), "{length}");
        }
        // An attribute of five bytes, padded, then the cgroup.
        whole.extend([5, 0, 1, 0, 9, 0, 0, 0, 12, 0, 21, 0]);
        whole.extend(42_u64.to_ne_bytes());
        let found = answer(&whole, 7).unwrap().unwrap().unwrap();
        assert_eq!(found.owner, owner(Some(42)));
        for length in [0, 1, 2, 3] {
            let mut odd = whole.clone();
            odd[HEADER + ANSWER] = length;
            let found = answer(&odd, 7).unwrap().unwrap().unwrap();
            assert_eq!(found.owner, owner(None), "an attribute of {length} bytes");
        }
        whole[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        whole[HEADER..][..4].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        let refused = answer(&whole, 7).unwrap().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    #[ignore = "prints how long asking takes"]
    fn asking_takes_microseconds() {
        let owners = SocketOwners::open().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let client = TcpStream::connect(to).unwrap();
        let from = client.local_addr().unwrap();
        let started = corelane_harness::clock::now();
        for _ in 0..100_000 {
            assert!(owners.of(from, to).unwrap().is_some());
        }
        let each = started.elapsed() / 100_000;
        writeln!(io::stderr(), "{each:?} each").unwrap();
    }
}
