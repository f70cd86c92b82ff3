//! Servers of the control plane: where they are, by which roots they are believed, what they are shown.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Roots where nothing else is given, relative to the working directory (spec: xds.md 1).
pub const ROOTS_DEFAULT: &str = "./var/run/secrets/istio/root-cert.pem";
/// Token where nothing else is given, if it exists (spec: xds.md 1.1).
pub const TOKEN_DEFAULT: &str = "./var/run/secrets/tokens/istio-token";

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// gRPC in TLS.
    Tls {
        /// DNS name or address.
        host: Arc<str>,
        /// Port.
        port: u16,
    },
    /// gRPC without protection: for a server on the same host, and for tests.
    Plain {
        /// DNS name or address.
        host: Arc<str>,
        /// Port.
        port: u16,
    },
    /// gRPC without TLS over a socket of the file system, whose permissions protect it.
    Unix(PathBuf),
}

/// By which roots a server is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// Those of the operating system.
    System,
    /// A PEM file, read for each connection.
    File(PathBuf),
    /// The PEM text itself.
    Pem(Arc<str>),
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, for the one who has to send it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

/// Where the token comes from that servers are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// [`TOKEN_DEFAULT`] if it exists when the node starts, else none.
    Default,
    /// The path of a file if there is one of this name when the node starts, else the token itself.
    Given(Secret),
}

/// One more header of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name, in lower case.
    pub name: Arc<str>,
    /// Value; it may be a credential.
    pub value: Secret,
}

/// Discovery from a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The control plane.
    pub address: ServerAddress,
    /// Who is believed to be it.
    pub roots: RootSource,
    /// A name its certificate may have instead of its host's.
    pub alt_hostname: Option<Arc<str>>,
    /// Extra headers of each stream.
    pub headers: Vec<Header>,
    /// Addresses are asked for when they are needed, instead of all of them being subscribed to.
    pub on_demand: bool,
    /// Folder in which the last accepted resources are kept for a start without the control plane.
    pub cache_dir: Option<PathBuf>,
    /// Who this node says it is.
    pub node: NodeFacts,
}

/// A certificate authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateAuthority {
    /// Where it is.
    pub address: ServerAddress,
    /// Who is believed to be it.
    pub roots: RootSource,
    /// A name its certificate may have instead of its host's.
    pub alt_hostname: Option<Arc<str>>,
    /// Extra headers of each request.
    pub headers: Vec<Header>,
    /// Life of certificates that is asked for.
    pub ttl: Duration,
    /// Certificates are renewed with the one in use as credential instead of the token.
    pub renew_with_certificate: bool,
}

/// What the control plane is told about this node (spec: xds.md 2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Own node, `NODE_NAME`.
    pub node_name: Arc<str>,
    /// Own address.
    pub instance_ip: Option<Arc<str>>,
    /// Name of the pod this node runs in.
    pub pod_name: Arc<str>,
    /// Namespace of that pod.
    pub pod_namespace: Arc<str>,
    /// Metadata by key; it wins over what is derived from the other facts.
    pub metadata: Vec<(Arc<str>, Arc<str>)>,
    /// Metadata as JSON, known to be well formed; wins over all others.
    pub metadata_json: Vec<(Arc<str>, Arc<str>)>,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = |host: &str| {
            if host.contains(':') {
                format!("[{host}]")
            } else {
                host.to_owned()
            }
        };
        match self {
            Self::Tls { host, port } => write!(f, "https://{}:{port}", bracketed(host)),
            Self::Plain { host, port } => write!(f, "http://{}:{port}", bracketed(host)),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for RootSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("SYSTEM"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Pem(text) => write!(f, "({} bytes)", text.len()),
        }
    }
}
