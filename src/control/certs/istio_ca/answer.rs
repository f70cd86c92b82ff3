//! Takes the authority's answer apart: leaf, intermediates, roots (spec ca.md 2.2).

use crate::control::certs::Fetched;
use crate::tls::credentials::{Material, Pem};
use crate::tls::pem::first_certificate;

/// An answer that makes no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Nothing in it.
    #[error("chain returned from CA is empty")]
    Empty,
    /// Roots come last, so a leaf alone is too little.
    #[error("chain returned from CA holds only a leaf and no root")]
    NoRoot,
    /// No certificate where there should be one.
    #[error("chain returned from CA: element {0} is not a certificate in PEM")]
    Certificate(usize),
}

/// Material from the answer. Of all elements but the last only the first certificate counts.
pub(super) fn fetched(chain: &[String], key: Pem) -> Result<Fetched, AnswerError> {
    let (roots, presented) = chain.split_last().ok_or(AnswerError::Empty)?;
    if presented.is_empty() {
        return Err(AnswerError::NoRoot);
    }
    let mut text = String::new();
    for (n, element) in presented.iter().enumerate() {
        let certificate = first_certificate(element.as_bytes());
        text.push_str(&certificate.ok_or(AnswerError::Certificate(n + 1))?);
    }
    let pem = |origin: &str, text: &str| Pem {
        origin: origin.to_owned(),
        bytes: text.as_bytes().to_vec(),
    };
    let material = Material {
        chain: pem("the chain returned from CA", &text),
        key,
        roots: pem("the roots returned from CA", roots),
    };
    Ok(Fetched {
        material,
        warnings: Vec::new(),
    })
}
