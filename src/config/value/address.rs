//! Addresses, destinations and names of workloads.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Kind, Name};
use crate::config::{ForwardTarget, ServiceAccountRef};
use crate::model::workload::WorkloadInfo;

/// `ADDRESS:PORT`.
pub(in crate::config) struct Address;

impl Kind for Address {
    type Value = SocketAddr;

    fn parse(&self, text: &str) -> Option<SocketAddr> {
        text.parse().ok()
    }

    fn expected(&self) -> String {
        "an address with a port such as `127.0.0.1:15008` or `[::1]:15008`".to_owned()
    }

    fn show(&self, value: &SocketAddr) -> String {
        value.to_string()
    }
}

/// Several addresses, separated by commas.
pub(in crate::config) struct Addresses;

impl Kind for Addresses {
    type Value = Vec<SocketAddr>;

    fn parse(&self, text: &str) -> Option<Vec<SocketAddr>> {
        text.split(',')
            .map(|part| part.trim().parse().ok())
            .collect()
    }

    fn expected(&self) -> String {
        "addresses with ports such as `127.0.0.1:15000`".to_owned()
    }

    fn show(&self, value: &Vec<SocketAddr>) -> String {
        let texts: Vec<_> = value.iter().map(ToString::to_string).collect();
        texts.join(",")
    }
}

/// `NAMESPACE/NAME/SERVICEACCOUNT`.
pub(in crate::config) struct WorkloadName;

impl Kind for WorkloadName {
    type Value = WorkloadInfo;

    fn parse(&self, text: &str) -> Option<WorkloadInfo> {
        let [namespace, name, service_account] = parts(text)?;
        Some(WorkloadInfo {
            name,
            namespace,
            service_account,
        })
    }

    fn expected(&self) -> String {
        "NAMESPACE/NAME/SERVICEACCOUNT".to_owned()
    }

    fn show(&self, value: &WorkloadInfo) -> String {
        format!(
            "{}/{}/{}",
            value.namespace, value.name, value.service_account
        )
    }
}

/// `NAMESPACE/SERVICEACCOUNT`.
pub(in crate::config) struct Account;

impl Kind for Account {
    type Value = ServiceAccountRef;

    fn parse(&self, text: &str) -> Option<ServiceAccountRef> {
        let [namespace, service_account] = parts(text)?;
        Some(ServiceAccountRef {
            namespace,
            service_account,
        })
    }

    fn expected(&self) -> String {
        "NAMESPACE/SERVICEACCOUNT".to_owned()
    }

    fn show(&self, value: &ServiceAccountRef) -> String {
        value.to_string()
    }
}

/// Exactly `N` non-empty names between slashes.
fn parts<const N: usize>(text: &str) -> Option<[Arc<str>; N]> {
    let names: Option<Vec<_>> = text
        .split('/')
        .map(|part| Name.parse(part).filter(|name| !name.is_empty()))
        .collect();
    names?.try_into().ok()
}

/// `ADDRESS:PORT` or `HOSTNAME:PORT`, port not 0.
pub(in crate::config) struct Target;

impl Kind for Target {
    type Value = ForwardTarget;

    fn parse(&self, text: &str) -> Option<ForwardTarget> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let usable = address.port() != 0 && !address.ip().is_unspecified();
            return usable.then_some(ForwardTarget::Address(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port: &u16| *port != 0)?;
        is_hostname(host).then(|| ForwardTarget::Hostname(host.into(), port))
    }

    fn expected(&self) -> String {
        "a destination such as `10.0.0.1:5432` or `db.default.example:5432`".to_owned()
    }

    fn show(&self, value: &ForwardTarget) -> String {
        value.to_string()
    }
}

/// RFC 1123 §2.1, with the underscore that service names use, and not all digits and dots.
fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253
        && text.split('.').all(label)
        && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}
