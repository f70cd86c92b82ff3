//! Addresses, one type for each role, so that two of them cannot be swapped by accident.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

/// Reduces an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) to plain IPv4.
#[must_use]
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

macro_rules! role_addr {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SocketAddr);

        impl $name {
            /// Wraps an address, reduced to its canonical form.
            #[must_use]
            pub fn new(addr: SocketAddr) -> Self {
                Self(canonical(addr))
            }

            /// The socket address.
            #[must_use]
            pub const fn get(self) -> SocketAddr {
                self.0
            }

            /// The IP address.
            #[must_use]
            pub const fn ip(self) -> IpAddr {
                self.0.ip()
            }

            /// The port.
            #[must_use]
            pub const fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

role_addr! {
    /// TCP peer address of an accepted connection.
    ClientAddr
}
role_addr! {
    /// Address this node dials.
    ServerAddr
}
role_addr! {
    /// Where the client meant to go before the kernel redirected it to us.
    OrigDstAddr
}

/// An IP address within a network; text form `network/ip`, `/10.0.0.1` for the default network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkAddress {
    /// Network name, empty for the default network.
    pub network: Arc<str>,
    /// Address within it.
    pub ip: IpAddr,
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.ip)
    }
}

impl FromStr for NetworkAddress {
    type Err = AddressTextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (network, ip) = text.split_once('/').ok_or(AddressTextError::NoSlash)?;
        let ip = ip.parse().map_err(|_| AddressTextError::BadIp)?;
        Ok(Self {
            network: network.into(),
            ip,
        })
    }
}

/// An address range within a network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkCidr {
    /// Network name, empty for the default network.
    pub network: Arc<str>,
    /// Range within it; host bits are ignored.
    pub cidr: IpNet,
}

/// Key of a service; text form `namespace/hostname`, split at the first `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedHostname {
    /// Namespace of the service.
    pub namespace: Arc<str>,
    /// Fully qualified hostname.
    pub hostname: Arc<str>,
}

impl fmt::Display for NamespacedHostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

impl FromStr for NamespacedHostname {
    type Err = AddressTextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, hostname) = text.split_once('/').ok_or(AddressTextError::NoSlash)?;
        Ok(Self {
            namespace: namespace.into(),
            hostname: hostname.into(),
        })
    }
}

/// CONNECT target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// `ip:port`, IPv6 in brackets.
    Address(SocketAddr),
    /// `hostname:port`.
    Hostname(Arc<str>, u16),
}

impl Authority {
    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Hostname(_, port) => *port,
        }
    }

    /// The address, unless it is a name.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address.ip()),
            Self::Hostname(..) => None,
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// Why an address text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressTextError {
    /// The separator is missing.
    #[error("expected `<network>/<ip>` or `<namespace>/<hostname>`, found no `/`")]
    NoSlash,
    /// The part after the separator is not an IP address.
    #[error("expected an IP address after the `/`")]
    BadIp,
}
