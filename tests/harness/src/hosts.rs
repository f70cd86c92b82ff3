//! Hosts: network namespaces joined by veth pairs to a router, with IPv4 and IPv6 addresses.
//!
//! Host number `i` of a network has 10.41.i.2/24 and fd41:i::2/64, and a default route through the
//! router. Networks of different tests never meet, so all use the same addresses.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NETWORKS_MADE: AtomicU32 = AtomicU32::new(0);

/// Several hosts and the router between them. Dropping it removes the namespaces.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Host>,
    namespaces: Vec<Namespace>,
}

/// One host. Clones mean the same host.
#[derive(Clone, Debug)]
pub struct Host {
    name: Arc<str>,
    namespace: Arc<str>,
    handle: Arc<File>,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Network {
    /// Makes a router and one host for each name.
    ///
    /// # Panics
    /// If a command fails; needs root.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        let number = NETWORKS_MADE.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("cl{}-{number}", std::process::id());
        let router = Namespace::new(format!("{prefix}-router"));
        router.set_sysctl("net/ipv4/ip_forward", "1");
        router.set_sysctl("net/ipv6/conf/all/forwarding", "1");
        let mut network = Self {
            hosts: Vec::new(),
            namespaces: vec![router],
        };
        for (index, name) in names.iter().enumerate() {
            let namespace = Namespace::new(format!("{prefix}-{name}"));
            let number = u8::try_from(index + 1).expect("few hosts");
            let router = &network.namespaces[0];
            let host = Host::join(name, &namespace, router, number);
            network.hosts.push(host);
            network.namespaces.push(namespace);
        }
        network
    }

    /// Makes two hosts and one link between them, without a router: what one sends, the other
    /// receives. For measurements, where forwarding would cost both time and evenness.
    ///
    /// # Panics
    /// If a command fails; needs root.
    #[must_use]
    pub fn direct(names: [&str; 2]) -> Self {
        let number = NETWORKS_MADE.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("cl{}-{number}", std::process::id());
        let namespaces = names.map(|name| Namespace::new(format!("{prefix}-{name}")));
        let [first, second] = namespaces.each_ref().map(|n| n.name.as_str());
        run(
            &format!("ip link add eth0 netns {first} type veth peer name eth0 netns {second}"),
            "",
        );
        let join = |index: u8| {
            let namespace = &namespaces[usize::from(index)];
            let number = index + 1;
            let (v4, v6) = Host::addresses(number);
            run(
                &format!("ip -n {} -batch -", namespace.name),
                &format!(
                    "addr add {v4}/16 dev eth0\n\
                     addr add {v6}/16 dev eth0 nodad\n\
                     link set eth0 up\n"
                ),
            );
            namespace.choose_congestion_control();
            Host::of(names[usize::from(index)], namespace, number)
        };
        let hosts = vec![join(0), join(1)];
        Self {
            hosts,
            namespaces: namespaces.into(),
        }
    }

    /// The host of that name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn host(&self, name: &str) -> Host {
        let found = self.hosts.iter().find(|host| &*host.name == name);
        found.unwrap_or_else(|| panic!("no host {name}")).clone()
    }
}

impl Host {
    fn join(name: &str, namespace: &Namespace, router: &Namespace, number: u8) -> Self {
        let (ns, hub) = (&namespace.name, &router.name);
        run(
            &format!("ip link add eth0 netns {ns} type veth peer name h{number} netns {hub}"),
            "",
        );
        let (v4, v6) = Self::addresses(number);
        run(
            &format!("ip -n {hub} -batch -"),
            &format!(
                "addr add 10.41.{number}.1/24 dev h{number}\n\
                 addr add fd41:{number:x}::1/64 dev h{number} nodad\n\
                 link set h{number} up\n"
            ),
        );
        run(
            &format!("ip -n {ns} -batch -"),
            &format!(
                "addr add {v4}/24 dev eth0\n\
                 addr add {v6}/64 dev eth0 nodad\n\
                 link set eth0 up\n\
                 route add default via 10.41.{number}.1\n\
                 route add default via fd41:{number:x}::1\n"
            ),
        );
        namespace.choose_congestion_control();
        Self::of(name, namespace, number)
    }

    fn addresses(number: u8) -> (Ipv4Addr, Ipv6Addr) {
        (
            Ipv4Addr::new(10, 41, number, 2),
            Ipv6Addr::new(0xfd41, u16::from(number), 0, 0, 0, 0, 0, 2),
        )
    }

    fn of(name: &str, namespace: &Namespace, number: u8) -> Self {
        let (v4, v6) = Self::addresses(number);
        Self {
            name: name.into(),
            namespace: namespace.name.as_str().into(),
            handle: Arc::clone(&namespace.handle),
            v4,
            v6,
        }
    }

    /// Name given to [`Network::new`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of its network namespace, as `ip netns` knows it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its network namespace.
    #[must_use]
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// IPv4 address.
    #[must_use]
    pub const fn v4(&self) -> Ipv4Addr {
        self.v4
    }

    /// IPv6 address.
    #[must_use]
    pub const fn v6(&self) -> Ipv6Addr {
        self.v6
    }

    /// Address of one family.
    #[must_use]
    pub const fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }

    /// Runs `work` on this host, on a thread of its own, and returns what it returns.
    ///
    /// # Panics
    /// If `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                enter_namespace(&self.handle);
                work()
            });
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread on this host. Threads it starts are on this host too.
    ///
    /// # Panics
    /// If the thread cannot be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let handle = Arc::clone(&self.handle);
        let start = move || {
            enter_namespace(&handle);
            work()
        };
        std::thread::Builder::new()
            .name(self.name.to_string())
            .spawn(start)
            .expect("thread")
    }

    /// A command that will run on this host. Its process id is the program's own.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// Applies nftables rules on this host, in one transaction.
    ///
    /// # Panics
    /// If nft refuses them.
    pub fn apply_nft(&self, rules: &str) {
        run(&format!("ip netns exec {} nft -f -", self.namespace), rules);
    }

    /// Runs `ip` commands of one family (without the leading word) on this host, one a line.
    ///
    /// # Panics
    /// If one fails.
    pub fn apply_ip(&self, family: Family, lines: &str) {
        let flag = match family {
            Family::V4 => "-4",
            Family::V6 => "-6",
        };
        run(&format!("ip {flag} -n {} -batch -", self.namespace), lines);
    }
}

/// Address family of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

#[derive(Debug)]
struct Namespace {
    name: String,
    handle: Arc<File>,
}

impl Namespace {
    fn new(name: String) -> Self {
        run(&format!("ip netns add {name}"), "");
        let handle = Arc::new(File::open(format!("/run/netns/{name}")).expect("namespace handle"));
        let namespace = Self { name, handle };
        run(&format!("ip -n {} link set lo up", namespace.name), "");
        namespace
    }

    /// The machine's default may be BBR, whose pacing behaves badly on veth. A namespace may only
    /// choose what the machine does not restrict: everywhere Reno, often CUBIC too.
    fn choose_congestion_control(&self) {
        let chosen = ["cubic", "reno"].iter().find(|name| {
            self.try_sysctl("net/ipv4/tcp_congestion_control", name)
                .is_ok()
        });
        assert!(chosen.is_some(), "neither CUBIC nor Reno on {}", self.name);
    }

    fn set_sysctl(&self, key: &str, value: &str) {
        self.try_sysctl(key, value)
            .unwrap_or_else(|e| panic!("{key}={value}: {e}"));
    }

    fn try_sysctl(&self, key: &str, value: &str) -> io::Result<()> {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                enter_namespace(&self.handle);
                fs::write(format!("/proc/sys/{key}"), value)
            });
            worker.join().expect("sysctl thread")
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn enter_namespace(handle: &File) {
    move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("enter a network namespace");
}

/// Runs a command line without quoting, feeding `input`.
fn run(line: &str, input: &str) {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    stdin
        .write_all(input.as_bytes())
        .expect("write to the command");
    drop(stdin);
    let output = child.wait_with_output().expect("wait for the command");
    assert!(
        output.status.success(),
        "{line}: {}\n{}{input}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
