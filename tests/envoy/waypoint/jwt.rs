//! Tokens (RFC 7519, ES256) and the set of keys that proves them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

/// Who issues the tokens.
pub(super) const ISSUER: &str = "tests";

/// A key that signs tokens.
#[derive(Debug)]
pub(super) struct Signer(EcdsaKeyPair);

impl Signer {
    pub(super) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// A token for `subject`.
    pub(super) fn token(&self, subject: &str) -> String {
        let head = base64(br#"{"alg":"ES256","typ":"JWT","kid":"k"}"#);
        let claims = base64(format!(r#"{{"iss":"{ISSUER}","sub":"{subject}"}}"#).as_bytes());
        let signed = format!("{head}.{claims}");
        let random = SystemRandom::new();
        let signature = self.0.sign(&random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", base64(signature.as_ref()))
    }

    /// The public key, as a set of one.
    pub(super) fn key_set(&self) -> String {
        // An uncompressed point: 4, then both coordinates.
        let point = self.0.public_key().as_ref();
        let (x, y) = (base64(&point[1..33]), base64(&point[33..]));
        format!(
            r#"{{"keys":[{{"kty":"EC","crv":"P-256","alg":"ES256","kid":"k","x":"{x}","y":"{y}"}}]}}"#
        )
    }
}

/// Base64 for URLs, without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for at in 0..=chunk.len() {
            let digit = bits >> (18 - 6 * at) & 0x3f;
            text.push(char::from(DIGITS[digit as usize]));
        }
    }
    text
}

#[test]
fn base64_is_that_of_the_rfc() {
    // RFC 4648 section 10.
    for (plain, encoded) in [
        ("", ""),
        ("f", "Zg"),
        ("fo", "Zm8"),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg"),
        ("fooba", "Zm9vYmE"),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(base64(plain.as_bytes()), encoded);
    }
}
