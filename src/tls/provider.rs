//! The one crypto provider and the two configurations made from it (spec hbone.md 2.1).

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, cipher_suite as suite, kx_group as group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CipherSuite, ClientConfig, Error, NamedGroup, ProtocolVersion, ServerConfig,
    SupportedCipherSuite, SupportedProtocolVersion, version,
};

use super::verify::{ClientVerifier, ServerVerifier, TrustRoots};
use super::{Records, TlsOptions};

pub(super) const ALPN_H2: &[u8] = b"h2";

const SUITES_TLS13: [SupportedCipherSuite; 2] = [
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_AES_128_GCM_SHA256,
];
const SUITES_TLS12: [SupportedCipherSuite; 4] = [
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// The provider these options allow. The post-quantum hybrid comes first, so that two of us use it;
/// its X25519 part is sent as a second key share, so that other peers need no extra round trip.
pub(super) fn provider(options: TlsOptions) -> Arc<CryptoProvider> {
    let mut cipher_suites = SUITES_TLS13.to_vec();
    if allows_tls12(options) {
        cipher_suites.extend(SUITES_TLS12);
    }
    let kx_groups: Vec<&'static dyn SupportedKxGroup> = if options.pqc_only {
        vec![group::X25519MLKEM768]
    } else {
        vec![
            group::X25519MLKEM768,
            group::X25519,
            group::SECP256R1,
            group::SECP384R1,
        ]
    };
    Arc::new(CryptoProvider {
        cipher_suites,
        kx_groups,
        ..aws_lc_rs::default_provider()
    })
}

fn allows_tls12(options: TlsOptions) -> bool {
    options.tls12 && !options.pqc_only
}

/// Whether our record layer takes sessions over. It speaks TLS 1.3 only, and which version a session
/// gets is known too late to choose.
fn moves_records_in_place(options: TlsOptions) -> bool {
    options.records == Records::InPlace && !allows_tls12(options)
}

pub(super) fn versions(options: TlsOptions) -> Vec<&'static SupportedProtocolVersion> {
    let mut versions = vec![&version::TLS13];
    if allows_tls12(options) {
        versions.push(&version::TLS12);
    }
    versions
}

/// Server side of one workload.
pub(super) fn server_config(
    options: TlsOptions,
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    verifier: ClientVerifier,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(options))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // A resumed session would skip verifying the client again: neither tickets nor session ids.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.enable_secret_extraction = moves_records_in_place(options);
    Ok(config)
}

/// Client side of one workload; its verifier accepts nobody until [`with_expected`] replaces it.
pub(super) fn client_config(
    options: TlsOptions,
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    roots: Arc<TrustRoots>,
) -> Result<ClientConfig, Error> {
    let nobody = ServerVerifier::new(roots, Arc::new([]));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(options))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(nobody))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_secret_extraction = moves_records_in_place(options);
    Ok(config)
}

/// The client side for one connection.
pub(super) fn with_expected(template: &ClientConfig, verifier: ServerVerifier) -> ClientConfig {
    let mut config = template.clone();
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(verifier));
    config
}

const UNKNOWN: &str = "unknown";

/// Version as logs and metrics show it.
pub(super) fn version_name(version: Option<ProtocolVersion>) -> &'static str {
    let names = [
        (ProtocolVersion::TLSv1_3, "TLSv1.3"),
        (ProtocolVersion::TLSv1_2, "TLSv1.2"),
    ];
    named(version, &names)
}

/// Group by its IANA name.
pub(super) fn group_name(group: Option<NamedGroup>) -> &'static str {
    let names = [
        (NamedGroup::X25519MLKEM768, "X25519MLKEM768"),
        (NamedGroup::X25519, "X25519"),
        (NamedGroup::secp256r1, "secp256r1"),
        (NamedGroup::secp384r1, "secp384r1"),
    ];
    named(group, &names)
}

/// Suite by its IANA name.
pub(super) fn cipher_name(cipher: Option<CipherSuite>) -> &'static str {
    let names = [
        (
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            "TLS_AES_256_GCM_SHA384",
        ),
        (
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            "TLS_AES_128_GCM_SHA256",
        ),
        (
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        ),
        (
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ),
        (
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        ),
        (
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ),
    ];
    named(cipher, &names)
}

fn named<T: PartialEq>(value: Option<T>, names: &[(T, &'static str)]) -> &'static str {
    value
        .and_then(|value| names.iter().find(|(known, _)| *known == value))
        .map_or(UNKNOWN, |(_, name)| name)
}
