//! The control plane: where it is, how it is believed, what it is told (spec: xds.md 1 and 2.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::NodeMode;
use super::super::problem::{ProblemKind, excerpt};
use super::super::raw::Candidate;
use super::super::schema::Key;
use super::super::server::{
    Discovery, Header, NodeFacts, ROOTS_DEFAULT, RootSource, ServerAddress, TOKEN_DEFAULT,
    TokenSource,
};
use super::super::unbuilt::{METADATA_READ, NO_CONTROL_PLANE};
use super::super::value::{Bool, Headers, Kind, Name, PathText, Roots, SecretText, Server, header};
use super::resolve;
use super::resolver::Resolver;

/// Where a mesh's own control plane is, seen from a pod.
const IN_CLUSTER: (&str, u16) = ("istiod.istio-system.svc", 15_012);

pub(super) fn in_cluster() -> ServerAddress {
    ServerAddress::Tls {
        host: IN_CLUSTER.0.into(),
        port: IN_CLUSTER.1,
    }
}

pub(super) fn discovery(
    r: &mut Resolver,
    mode: Option<&NodeMode>,
    node_name: Option<&Arc<str>>,
    answers_names: bool,
) -> Option<Discovery> {
    let default = r.raw.in_cluster.then(in_cluster);
    let Some(address) = r.get(Key::XdsAddress, default, &Server) else {
        without(r, mode);
        return None;
    };
    if matches!(address, ServerAddress::Plain { .. }) {
        let message = "nothing protects this connection: whoever can reach it can read the token \
                       and write policies. Use it on one host only";
        let origin = r.origin_of(Key::XdsAddress);
        r.warn(
            origin,
            Key::XdsAddress,
            ProblemKind::Surprise(message.to_owned()),
        );
    }
    let roots = r.get(
        Key::XdsRootCa,
        RootSource::File(ROOTS_DEFAULT.into()),
        &Roots,
    );
    let cache_dir = r
        .optional_with_origin(Key::XdsCacheDir, &PathText)
        .map(|(dir, origin)| resolve(&r.raw.base_dir, &origin, dir));
    let given = std::mem::take(&mut r.raw.xds_headers);
    let from_file = r.optional(Key::XdsHeaders, &Headers).unwrap_or_default();
    let on_demand = r.get(Key::XdsOnDemand, false, &Bool);
    if on_demand && answers_names {
        let message = "the DNS proxy answers from the whole mesh; switch it off \
                       (ISTIO_META_DNS_CAPTURE=false) or subscribe to all";
        let origin = r.origin_of(Key::XdsOnDemand);
        let kind = ProblemKind::Conflict(message.to_owned());
        r.problem(origin, Key::XdsOnDemand, kind);
    }
    Some(Discovery {
        address,
        roots,
        alt_hostname: r.optional(Key::XdsAltHostname, &Name),
        headers: [from_file, headers(r, given)].concat(),
        on_demand,
        cache_dir,
        node: node(r, node_name),
    })
}

/// The token, for whoever talks to the control plane or its certificate authority.
pub(super) fn auth_token(r: &mut Resolver, used: bool) -> TokenSource {
    if !used {
        check(r, Key::AuthToken, &SecretText, NO_CONTROL_PLANE);
        return TokenSource::Default;
    }
    match r.optional(Key::AuthToken, &SecretText) {
        Some(text) => TokenSource::Given(text),
        None => {
            r.record(
                Key::AuthToken,
                TOKEN_DEFAULT.to_owned(),
                super::Origin::Default,
            );
            TokenSource::Default
        }
    }
}

/// Extra headers, by the ends of their variables' names.
pub(super) fn headers(r: &mut Resolver, given: BTreeMap<String, Candidate>) -> Vec<Header> {
    let mut headers = Vec::with_capacity(given.len());
    for (name, candidate) in given {
        match header(&name, &candidate.text) {
            Some(header) => headers.push(header),
            None => {
                let message = "no header of a request: neither its name nor its value may hold \
                               characters that headers do not have, and those of the protocol are \
                               fixed";
                let kind = ProblemKind::Conflict(message.to_owned());
                r.problem_named(candidate.origin, "", kind);
            }
        }
    }
    headers
}

fn node(r: &mut Resolver, node_name: Option<&Arc<str>>) -> NodeFacts {
    let instance_ip = r.optional(Key::InstanceIp, &Name);
    let mut metadata: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    if let Some(ips) = r.optional(Key::InstanceIps, &Name) {
        metadata.push(("INSTANCE_IPS".into(), ips));
    }
    let given = r.raw.mesh.metadata.iter();
    metadata.extend(given.map(|(key, value)| (key.as_str().into(), value.text.as_str().into())));
    NodeFacts {
        node_name: node_name.cloned().unwrap_or_default(),
        instance_ip,
        pod_name: r.optional(Key::PodName, &Name).unwrap_or_default(),
        pod_namespace: r.optional(Key::PodNamespace, &Name).unwrap_or_default(),
        metadata,
        metadata_json: metadata_json(r),
    }
}

/// What is no JSON is left out, as the reference does, and pointed out.
fn metadata_json(r: &mut Resolver) -> Vec<(Arc<str>, Arc<str>)> {
    let given = std::mem::take(&mut r.raw.metadata_json);
    let mut good = Vec::with_capacity(given.len());
    for (key, candidate) in given {
        match serde_json::from_str::<serde::de::IgnoredAny>(&candidate.text) {
            Ok(_) => good.push((key.into(), candidate.text.into())),
            Err(error) => {
                let text = excerpt(&candidate.text);
                let message = format!("`{text}` is no JSON and is left out: {error}");
                r.warn_named(candidate.origin, "", ProblemKind::Surprise(message));
            }
        }
    }
    good
}

/// Without a control plane: everything that only concerns one is checked, and has no effect.
fn without(r: &mut Resolver, mode: Option<&NodeMode>) {
    let unused = NO_CONTROL_PLANE;
    check(r, Key::XdsRootCa, &Roots, unused);
    check(r, Key::XdsAltHostname, &Name, unused);
    check(r, Key::XdsHeaders, &Headers, unused);
    check(r, Key::XdsOnDemand, &Bool, unused);
    check(r, Key::XdsCacheDir, &PathText, unused);
    check(r, Key::InstanceIp, &Name, unused);
    check(r, Key::InstanceIps, &Name, unused);
    // A shared node also learns from these two which workload it is.
    if mode.is_none_or(|mode| mode.shared().is_none()) {
        check(r, Key::PodName, &Name, unused);
        check(r, Key::PodNamespace, &Name, unused);
    }
    let variables = |c: &Candidate| matches!(c.origin, super::Origin::Env(_));
    let metadata = r.raw.mesh.metadata.iter();
    let metadata =
        metadata.filter(|(key, c)| variables(c) && !METADATA_READ.contains(&key.as_str()));
    let origins: Vec<_> = metadata
        .map(|(_, c)| c)
        .chain(r.raw.metadata_json.values())
        .chain(r.raw.xds_headers.values())
        .map(|candidate| candidate.origin.clone())
        .collect();
    for origin in origins {
        r.warn_named(origin, "", ProblemKind::NoEffect(NO_CONTROL_PLANE));
    }
}

/// Checks a setting that has no effect because of `why`.
pub(super) fn check<K: Kind>(r: &mut Resolver, key: Key, kind: &K, why: &'static str) {
    if let Some((value, origin)) = r.winner(key, kind)
        && kind.show(&value) != "false"
    {
        r.warn(origin, key, ProblemKind::NoEffect(why));
    }
}
