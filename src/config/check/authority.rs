//! Where certificates come from: an identity directory, or a certificate authority (spec: ca.md 2).

use std::path::PathBuf;
use std::time::Duration;

use super::super::problem::ProblemKind;
use super::super::schema::Key;
use super::super::server::{CertificateAuthority, ROOTS_DEFAULT, RootSource, ServerAddress};
use super::super::unbuilt::NO_CA;
use super::super::value::{Bool, Headers, Name, PathText, Roots, Server, Span};
use super::resolver::Resolver;
use super::{Origin, discovery, resolve};

/// Life of certificates that is asked for by default, the reference's.
const TTL_DEFAULT: Duration = Duration::from_hours(24);

/// The directory or the authority; a warning if there is neither.
pub(super) fn source(r: &mut Resolver) -> (Option<PathBuf>, Option<CertificateAuthority>) {
    let dir = r.optional_with_origin(Key::IdentityDir, &PathText);
    let default = (r.raw.in_cluster && dir.is_none()).then(discovery::in_cluster);
    let address = r.get(Key::CaAddress, default, &Server);
    let from = r.origin_of(Key::CaAddress);
    match (dir, address) {
        (Some((dir, origin)), Some(address)) => {
            if origin.rank() == from.rank() {
                let message = format!(
                    "contradicts {}: certificates come from one place",
                    Key::IdentityDir.name()
                );
                r.problem(from, Key::CaAddress, ProblemKind::Conflict(message));
                return (None, None);
            }
            if origin.rank() > from.rank() {
                without(r);
                return (Some(resolve(&r.raw.base_dir, &origin, dir)), None);
            }
            (None, Some(authority(r, address)))
        }
        (Some((dir, origin)), None) => {
            without(r);
            (Some(resolve(&r.raw.base_dir, &origin, dir)), None)
        }
        (None, Some(address)) => (None, Some(authority(r, address))),
        (None, None) => {
            without(r);
            let message = "no identities: HBONE is refused in both directions \
                           (CORELANE_IDENTITY_DIR, or CA_ADDRESS)";
            let kind = ProblemKind::Surprise(message.to_owned());
            r.warn(Origin::Default, Key::IdentityDir, kind);
            (None, None)
        }
    }
}

fn authority(r: &mut Resolver, address: ServerAddress) -> CertificateAuthority {
    if matches!(address, ServerAddress::Plain { .. }) {
        let message = "nothing protects this connection: whoever can reach it can read the token \
                       and issue certificates. Use it on one host only";
        let origin = r.origin_of(Key::CaAddress);
        let kind = ProblemKind::Surprise(message.to_owned());
        r.warn(origin, Key::CaAddress, kind);
    }
    let default = RootSource::File(ROOTS_DEFAULT.into());
    let given = std::mem::take(&mut r.raw.ca_headers);
    let from_file = r.optional(Key::CaHeaders, &Headers).unwrap_or_default();
    CertificateAuthority {
        address,
        roots: r.get(Key::CaRootCa, default, &Roots),
        alt_hostname: r.optional(Key::CaAltHostname, &Name),
        headers: [from_file, discovery::headers(r, given)].concat(),
        ttl: r.get(Key::SecretTtl, TTL_DEFAULT, &Span::positive()),
        renew_with_certificate: r.get(Key::CaRenewWithCertificate, false, &Bool),
    }
}

/// Without an authority: everything that only concerns one is checked, and has no effect.
fn without(r: &mut Resolver) {
    discovery::check(r, Key::CaRootCa, &Roots, NO_CA);
    discovery::check(r, Key::CaAltHostname, &Name, NO_CA);
    discovery::check(r, Key::CaHeaders, &Headers, NO_CA);
    discovery::check(r, Key::SecretTtl, &Span::positive(), NO_CA);
    discovery::check(r, Key::CaRenewWithCertificate, &Bool, NO_CA);
    let headers = r.raw.ca_headers.values();
    let origins: Vec<_> = headers.map(|candidate| candidate.origin.clone()).collect();
    for origin in origins {
        r.warn_named(origin, "", ProblemKind::NoEffect(NO_CA));
    }
}
