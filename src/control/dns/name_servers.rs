//! The host's resolver configuration: name servers, search domains, options (resolv.conf(5)).

use std::sync::Arc;

use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::system_conf::parse_resolv_conf;

/// What resolv.conf says.
#[derive(Clone, Debug)]
pub struct NameServers {
    config: ResolverConfig,
    options: ResolverOpts,
}

/// Why a resolv.conf cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ResolvConfError(String);

impl NameServers {
    /// Reads the text of a resolv.conf.
    ///
    /// # Errors
    /// When it lists no name server, or a search domain that is no name.
    pub fn parse(text: &str) -> Result<Self, ResolvConfError> {
        let parsed = parse_resolv_conf(text);
        let (config, options) = parsed.map_err(|error| ResolvConfError(error.to_string()))?;
        Ok(Self { config, options })
    }

    /// One server at an address with a port, with these options.
    #[cfg(test)]
    pub(super) fn at(address: std::net::SocketAddr, options: ResolverOpts) -> Self {
        use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
        let on = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        let connections = vec![on(ConnectionConfig::udp()), on(ConnectionConfig::tcp())];
        let server = NameServerConfig::new(address.ip(), true, connections);
        Self {
            config: ResolverConfig::from_name_servers(vec![server]),
            options,
        }
    }

    /// Search domains in order, in lower case without final dots.
    #[must_use]
    pub fn search(&self) -> Arc<[Arc<str>]> {
        let domains = self.config.search().iter();
        domains
            .map(|domain| {
                let text = domain.to_lowercase().to_ascii();
                Arc::from(text.trim_end_matches('.'))
            })
            .filter(|domain: &Arc<str>| !domain.is_empty())
            .collect()
    }

    /// For hickory, and for the dump.
    pub(in crate::control) fn parts(&self) -> (ResolverConfig, ResolverOpts) {
        (self.config.clone(), self.options.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_search_domains_and_options_are_read() {
        let text = "# pod\nnameserver 10.96.0.10\nnameserver fd00::10\n\
                    search ns1.svc.Cluster.Local. svc.cluster.local cluster.local\n\
                    options ndots:5 timeout:1 attempts:3 edns0\n";
        let servers = NameServers::parse(text).unwrap();
        let ips: Vec<_> = servers.config.name_servers().iter().map(|s| s.ip).collect();
        assert_eq!(
            ips,
            ["10.96.0.10", "fd00::10"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap())
        );
        let search: Vec<_> = servers.search().iter().map(ToString::to_string).collect();
        assert_eq!(
            search,
            [
                "ns1.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local"
            ]
        );
        let options = &servers.options;
        assert_eq!((options.ndots, options.attempts), (5, 3));
        assert_eq!(options.timeout, std::time::Duration::from_secs(1));
        assert!(options.edns0);
    }

    #[test]
    fn without_the_option_no_edns_is_sent() {
        let servers = NameServers::parse("nameserver 10.0.0.1\n").unwrap();
        assert!(!servers.options.edns0);
        let domain = NameServers::parse("nameserver 10.0.0.1\ndomain Example.com\n").unwrap();
        assert_eq!(&*domain.search()[0], "example.com");
    }

    #[test]
    fn a_file_without_name_server_is_refused() {
        for text in ["", "search a.b\n", "nameserver nowhere\n"] {
            assert!(NameServers::parse(text).is_err(), "{text:?}");
        }
    }
}
