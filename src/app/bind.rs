//! Binds every listener of the data plane once for each shard, before anything is served.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::config::tuning::Steering;
use crate::config::{Config, OriginalSource};
use crate::dataplane::shard::{ListenerRole, PlannedListener};
use crate::sys::socket::{ListenOptions, listen, local_addr};
use crate::sys::steering::steer_by_cpu;

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// bind(2) or listen(2) failed.
    #[error("failed to bind to address {addr} ({what}): {source}{hint}")]
    Bind {
        /// Address.
        addr: SocketAddr,
        /// What the listener is for.
        what: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
    /// IP_TRANSPARENT is required but not permitted.
    #[error(
        "failed to bind to address {addr} ({what}): ENABLE_ORIG_SRC=true needs IP_TRANSPARENT; \
         grant CAP_NET_RAW or CAP_NET_ADMIN"
    )]
    Transparent {
        /// Address.
        addr: SocketAddr,
        /// What the listener is for.
        what: &'static str,
    },
}

/// The listeners of each shard, in the order of the shards.
///
/// # Errors
/// The first listener that cannot be bound; all others are closed again.
pub fn bind_all(config: &Config) -> Result<Vec<Vec<PlannedListener>>, BindError> {
    bind_each(config, wanted(config), config.socket.reuse_port)
}

/// The listeners of one workload for each shard; to be called inside its namespace.
///
/// # Errors
/// As [`bind_all`].
pub fn bind_workload(
    config: &Config,
    port_reuse: bool,
) -> Result<Vec<Vec<PlannedListener>>, BindError> {
    bind_each(config, captured(config), port_reuse)
}

fn bind_each(
    config: &Config,
    wanted: Vec<(SocketAddr, ListenerRole)>,
    reuse_port: bool,
) -> Result<Vec<Vec<PlannedListener>>, BindError> {
    let mut shards: Vec<Vec<PlannedListener>> =
        (0..config.shards.count).map(|_| Vec::new()).collect();
    for (addr, role) in wanted {
        let mut addr = addr;
        if !reuse_port {
            probe(addr, component(&role))?;
        }
        for listeners in &mut shards {
            let planned = bind(config, addr, role.clone(), reuse_port)?;
            // Port 0: the first shard's socket chooses, the others share its port.
            addr = planned.addr;
            listeners.push(planned);
        }
        if let Some(planned) = shards[0].last() {
            steer(config, planned)?;
        }
    }
    Ok(shards)
}

/// Makes the kernel choose the shard by the CPU that received the packet, where that is wanted.
fn steer(config: &Config, first: &PlannedListener) -> Result<(), BindError> {
    let shards = &config.shards;
    if config.tuning.steering != Steering::Cpu || shards.count < 2 {
        return Ok(());
    }
    let cpus: Vec<usize> = shards.cpus.iter().copied().take(shards.count).collect();
    steer_by_cpu(AsFd::as_fd(&first.fd), &cpus)
        .map_err(|source| failed(first.addr, component(&first.role), source))
}

/// Name of a listener in logs (spec: telemetry 3.6).
#[must_use]
pub const fn component(role: &ListenerRole) -> &'static str {
    match role {
        ListenerRole::Outbound => "outbound",
        ListenerRole::InboundPlaintext => "inbound plaintext",
        ListenerRole::Inbound | ListenerRole::OwnInbound => "inbound",
        ListenerRole::Socks5 => "socks5",
        ListenerRole::Forward(..) => "forward",
    }
}

fn wanted(config: &Config) -> Vec<(SocketAddr, ListenerRole)> {
    let listeners = &config.listeners;
    let mut wanted = match config.mode.shared() {
        None => captured(config),
        Some(shared) => {
            let own = listeners.inbound.filter(|_| shared.own.is_some());
            own.map(|addr| (addr, ListenerRole::OwnInbound))
                .into_iter()
                .collect()
        }
    };
    wanted.extend(listeners.forwards.iter().map(|forward| {
        let role = ListenerRole::Forward(forward.to.clone(), forward.as_workload.clone());
        (forward.listen, role)
    }));
    wanted
}

/// What serves the workload or workloads of one namespace, in the order of spec zds.md 4.1.
fn captured(config: &Config) -> Vec<(SocketAddr, ListenerRole)> {
    let listeners = &config.listeners;
    let mut wanted = Vec::new();
    if config.enable_proxy {
        wanted.extend(listeners.inbound.map(|addr| (addr, ListenerRole::Inbound)));
        let plaintext = listeners.inbound_plaintext;
        wanted.extend(plaintext.map(|addr| (addr, ListenerRole::InboundPlaintext)));
        wanted.extend(
            listeners
                .outbound
                .map(|addr| (addr, ListenerRole::Outbound)),
        );
        wanted.extend(listeners.socks5.map(|addr| (addr, ListenerRole::Socks5)));
    }
    wanted
}

fn bind(
    config: &Config,
    addr: SocketAddr,
    role: ListenerRole,
    reuse_port: bool,
) -> Result<PlannedListener, BindError> {
    let what = component(&role);
    let source_matters = !matches!(role, ListenerRole::Forward(..) | ListenerRole::OwnInbound);
    let original_source = config.socket.original_source;
    let options = ListenOptions {
        reuse_port: config.shards.count > 1 || reuse_port,
        mark: config.socket.packet_mark,
        // TPROXY delivers to transparent sockets only, whoever's address we dial from.
        transparent: source_matters,
        backlog: config.tuning.listen_backlog,
    };
    let (fd, transparent) = listen(addr, &options).map_err(|source| failed(addr, what, source))?;
    if source_matters && original_source == OriginalSource::Required && !transparent {
        return Err(BindError::Transparent { addr, what });
    }
    let addr = local_addr(fd.as_fd()).map_err(|source| failed(addr, what, source))?;
    Ok(PlannedListener {
        fd,
        addr,
        role,
        transparent: transparent && original_source != OriginalSource::Never,
    })
}

/// SO_REUSEPORT would share a port silently with another process of this user: ask first.
fn probe(addr: SocketAddr, what: &'static str) -> Result<(), BindError> {
    let options = ListenOptions {
        backlog: 1,
        ..ListenOptions::default()
    };
    match listen(addr, &options) {
        Ok(_closed_again) => Ok(()),
        Err(source) => Err(failed(addr, what, source)),
    }
}

fn failed(addr: SocketAddr, what: &'static str, source: io::Error) -> BindError {
    let hint = match source.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "; another process holds it (`ss -ltnp` shows which): stop it or configure another \
             address"
        }
        Some(libc::EADDRNOTAVAIL) => "; this host does not have that address",
        Some(libc::EACCES | libc::EPERM) => {
            "; the port or the packet mark needs privileges (CAP_NET_BIND_SERVICE, CAP_NET_RAW)"
        }
        Some(libc::EAFNOSUPPORT) => "; the kernel lacks that family: set IPV6_ENABLED=false",
        _ => "",
    };
    BindError::Bind {
        addr,
        what,
        source,
        hint,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use socket2::SockRef;

    use super::*;
    use crate::config::raw::{RawConfig, Sources};

    /// A shared node with two shards, listening on ports the kernel chooses.
    fn config(env: &[(&str, &str)]) -> Config {
        let base = [
            ("LOCAL_XDS_PATH", "s"),
            ("CORELANE_IDENTITY_DIR", "i"),
            ("ZTUNNEL_WORKER_THREADS", "2"),
        ];
        let all = base.iter().chain(env);
        let listeners = ["inbound", "inboundPlaintext", "outbound", "socks5"]
            .map(|name| (format!("listeners.{name}"), "127.0.0.1:0".to_owned()));
        let raw = RawConfig::read(&Sources {
            env: all.map(|(n, v)| ((*n).to_owned(), (*v).into())).collect(),
            read_file: &|_| Err(ErrorKind::NotFound.into()),
            config_file: None,
            overrides: listeners.into(),
            cpus: vec![0, 1],
        });
        Config::try_from(raw).unwrap()
    }

    fn ports(shard: &[PlannedListener]) -> Vec<u16> {
        shard.iter().map(|planned| planned.addr.port()).collect()
    }

    #[test]
    fn a_workload_gets_all_its_listeners_on_every_shard_and_the_node_none() {
        let config = config(&[("PACKET_MARK", "none")]);
        let shards = bind_workload(&config, true).unwrap();
        assert_eq!(shards.len(), 2);
        let roles: Vec<_> = shards[0].iter().map(|p| component(&p.role)).collect();
        let order = ["inbound", "inbound plaintext", "outbound", "socks5"];
        assert_eq!(roles, order);
        assert_eq!(ports(&shards[0]), ports(&shards[1]));
        let own: usize = bind_all(&config).unwrap().iter().map(Vec::len).sum();
        assert_eq!(own, 0, "nothing in the node's own namespace");
    }

    #[test]
    fn a_node_that_is_a_workload_listens_for_tunnels_to_itself_only() {
        let config = config(&[
            ("PACKET_MARK", "none"),
            ("POD_NAME", "zt"),
            ("POD_NAMESPACE", "mesh"),
            ("SERVICE_ACCOUNT", "tunnel"),
        ]);
        let shards = bind_all(&config).unwrap();
        let [listener] = shards[0].as_slice() else {
            panic!("{shards:?}");
        };
        assert!(matches!(listener.role, ListenerRole::OwnInbound));
        assert!(!listener.transparent);
    }

    #[test]
    fn a_workload_whose_port_is_taken_gets_nothing() {
        let mut config = config(&[("PACKET_MARK", "none")]);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        config.listeners.outbound = Some(taken.local_addr().unwrap());
        for port_reuse in [true, false] {
            let error = bind_workload(&config, port_reuse).unwrap_err().to_string();
            assert!(error.contains("outbound"), "{error}");
        }
    }

    #[test]
    fn listeners_carry_the_mark_and_share_their_port_as_configured() {
        if !corelane_harness::requirements::has_netns("listeners_carry_the_mark") {
            return;
        }
        let mut config = config(&[("PACKET_MARK", "123")]);
        config.shards.count = 1;
        for port_reuse in [true, false] {
            for listener in &bind_workload(&config, port_reuse).unwrap()[0] {
                let socket = SockRef::from(&listener.fd);
                assert_eq!(socket.mark().unwrap(), 123);
                assert_eq!(socket.reuse_port().unwrap(), port_reuse);
            }
        }
    }
}
