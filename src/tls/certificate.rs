//! Reads the few facts this program needs from one X.509 certificate.
//!
//! The chain itself is judged by webpki; here only names and dates are read. The list of subject
//! alternative names is walked byte by byte, so that no name is skipped for being odd: the check of
//! a peer and its authorization must look at the same, single URI (RFC 5280, 4.2.1.6).

use std::time::{Duration, SystemTime};

use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::nom::Parser;
use x509_parser::oid_registry::{OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_SUBJECT_ALT_NAME};

use crate::model::identity::Identity;

/// Tags of RFC 5280 `GeneralName` and of the two DER forms around it.
const TAG_SEQUENCE: u8 = 0x30;
const TAG_URI: u8 = 0x86;
const TAG_SUBTREES: [u8; 2] = [0xa0, 0xa1];

/// A certificate could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes are not one certificate.
    #[error("not a readable X.509 certificate")]
    Malformed,
    /// The subject alternative name extension is not a list of general names.
    #[error("unreadable subject alternative names")]
    AlternativeNames,
}

/// The URI names of a leaf do not name exactly one identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SanError {
    /// No URI among the subject alternative names.
    #[error("no URI SAN (exactly one is required)")]
    Missing,
    /// More than one URI: two checks could look at different ones.
    #[error("{} URI SANs (exactly one is required): {}", .0.len(), .0.join(","))]
    Several(Vec<String>),
    /// A byte that is not printable ASCII, such as NUL. The text is escaped.
    #[error("URI SAN with a byte that is not printable ASCII: {0}")]
    Bytes(String),
    /// Not of the form `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
    #[error("URI SAN is not a mesh identity: {0}")]
    Form(String),
}

/// What one certificate says.
#[derive(Debug)]
pub struct Certificate<'a> {
    parsed: X509Certificate<'a>,
    uris: Vec<&'a [u8]>,
}

impl<'a> Certificate<'a> {
    /// Reads a DER certificate.
    ///
    /// # Errors
    /// [`ReadError`], also for bytes after the certificate.
    pub fn read(der: &'a [u8]) -> Result<Self, ReadError> {
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (rest, parsed) = parser.parse(der).map_err(|_| ReadError::Malformed)?;
        if !rest.is_empty() {
            return Err(ReadError::Malformed);
        }
        let mut uris = Vec::new();
        for extension in parsed.extensions() {
            if extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME {
                collect_uris(extension.value, &mut uris).ok_or(ReadError::AlternativeNames)?;
            }
        }
        Ok(Self { parsed, uris })
    }

    /// The identity in the only URI name.
    ///
    /// # Errors
    /// [`SanError`] unless there is exactly one URI and it is a mesh identity.
    pub fn identity(&self) -> Result<Identity, SanError> {
        match self.uris.as_slice() {
            [] => Err(SanError::Missing),
            [uri] => {
                if uri.is_empty() || !uri.iter().all(u8::is_ascii_graphic) {
                    return Err(SanError::Bytes(printable(uri)));
                }
                let text = printable(uri);
                text.parse().map_err(|_| SanError::Form(text))
            }
            _ => Err(SanError::Several(self.uri_names())),
        }
    }

    /// Every URI name, bytes that are not printable ASCII escaped.
    #[must_use]
    pub fn uri_names(&self) -> Vec<String> {
        self.uris.iter().map(|uri| printable(uri)).collect()
    }

    /// Start of validity.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        system_time(self.parsed.validity().not_before.timestamp())
    }

    /// End of validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        system_time(self.parsed.validity().not_after.timestamp())
    }

    /// Serial number in decimal.
    #[must_use]
    pub fn serial_decimal(&self) -> String {
        self.parsed.serial.to_string()
    }

    /// Whether `issuer` carries the name that this certificate gives for its issuer.
    #[must_use]
    pub fn names_issuer(&self, issuer: &Certificate<'_>) -> bool {
        self.parsed.issuer().as_raw() == issuer.parsed.subject().as_raw()
    }

    /// Whether subject and issuer carry the same name, as a root does.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.parsed.issuer().as_raw() == self.parsed.subject().as_raw()
    }

    /// Subject as text, for messages.
    #[must_use]
    pub fn subject(&self) -> String {
        printable(self.parsed.subject().to_string().as_bytes())
    }

    /// Whether this CA restricts URI names. webpki refuses every URI below such a CA.
    #[must_use]
    pub fn constrains_uris(&self) -> bool {
        self.parsed
            .extensions()
            .iter()
            .any(|e| e.oid == OID_X509_EXT_NAME_CONSTRAINTS && mentions_uri(e.value))
    }
}

/// Text with everything but printable ASCII and spaces escaped: peers choose these bytes.
fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn system_time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn collect_uris<'a>(extension: &'a [u8], uris: &mut Vec<&'a [u8]>) -> Option<()> {
    let (tag, mut names, rest) = element(extension)?;
    if tag != TAG_SEQUENCE || !rest.is_empty() {
        return None;
    }
    while !names.is_empty() {
        let (tag, value, rest) = element(names)?;
        // All nine forms are context-specific, numbers 0 to 8.
        if tag & 0xc0 != 0x80 || tag & 0x1f > 8 {
            return None;
        }
        if tag == TAG_URI {
            uris.push(value);
        }
        names = rest;
    }
    Some(())
}

/// Whether a `NameConstraints` value has a subtree of URI form. Unreadable counts as "no": webpki
/// refuses such a chain for its own reasons.
fn mentions_uri(extension: &[u8]) -> bool {
    let Some((TAG_SEQUENCE, mut lists, _)) = element(extension) else {
        return false;
    };
    while let Some((tag, mut subtrees, rest)) = element(lists) {
        while let Some((TAG_SEQUENCE, subtree, next)) = element(subtrees) {
            let uri = element(subtree).is_some_and(|(base, _, _)| base == TAG_URI);
            if TAG_SUBTREES.contains(&tag) && uri {
                return true;
            }
            subtrees = next;
        }
        lists = rest;
    }
    false
}

/// Splits the first DER element off: tag, value, rest. Definite, minimal lengths up to 65535 only.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, input) = input.split_first()?;
    let (&first, input) = input.split_first()?;
    let (length, input) = match first {
        0..=0x7f => (usize::from(first), input),
        0x81 => {
            let (&length, input) = input.split_first()?;
            (length >= 0x80).then_some((usize::from(length), input))?
        }
        0x82 => {
            let (length, input) = input.split_first_chunk::<2>()?;
            let length = u16::from_be_bytes(*length);
            (length > 0xff).then_some((usize::from(length), input))?
        }
        _ => return None,
    };
    let (value, rest) = input.split_at_checked(length)?;
    Some((tag, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uris(extension: &[u8]) -> Option<Vec<&[u8]>> {
        let mut uris = Vec::new();
        collect_uris(extension, &mut uris).map(|()| uris)
    }

    #[test]
    fn uri_names_are_found_among_other_names() {
        let list = b"\x30\x0b\x82\x01a\x86\x02u1\x86\x02u2";
        assert_eq!(uris(list), Some(vec![&b"u1"[..], b"u2"]));
        assert_eq!(uris(b"\x30\x00"), Some(vec![]));
    }

    #[test]
    fn a_list_that_is_not_der_is_refused() {
        for list in [
            &b""[..],
            b"\x30",
            b"\x31\x00",
            b"\x30\x00\x00",
            b"\x30\x02\x86\x01",
            b"\x30\x80\x00\x00",
            b"\x30\x81\x04\x86\x02u1",
            b"\x30\x04\x06\x02u1",
            b"\x30\x04\x89\x02u1",
        ] {
            assert_eq!(uris(list), None, "{list:x?}");
        }
    }

    #[test]
    fn long_lengths_are_read() {
        let long = vec![b'x'; 300];
        let mut list = vec![0x30, 0x82, 0x01, 0x30, 0x86, 0x82, 0x01, 0x2c];
        list.extend_from_slice(&long);
        assert_eq!(uris(&list), Some(vec![&long[..]]));
    }
}
