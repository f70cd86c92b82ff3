//! The credentials of every local identity, published to the shards like mesh state.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Credentials;
use crate::model::identity::Identity;

/// State of one identity's certificate (spec ca.md 3, admin.md 3.5).
#[derive(Clone, Debug)]
pub enum CredentialState {
    /// Asked for, no answer yet.
    Initializing,
    /// Usable; it may have expired meanwhile, which is for peers to judge.
    Available(Arc<Credentials>),
    /// Could not be had; the text says why.
    Unavailable(String),
}

/// No credentials for an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// This node does not hold that identity, or does no more.
    #[error("the identity is no longer needed: {0}")]
    Unknown(Identity),
    /// The first certificate is still being fetched: wait and ask again.
    #[error("certificate of {0} is still being fetched")]
    Initializing(Identity),
    /// The provider failed; the text says why.
    #[error("{reason}")]
    Unavailable {
        /// Whose certificate.
        identity: Identity,
        /// The provider's words.
        reason: String,
    },
}

/// Immutable map from identity to its certificate's state.
#[derive(Clone, Debug, Default)]
pub struct CredentialStore {
    entries: BTreeMap<Identity, CredentialState>,
}

impl CredentialStore {
    /// A store of these states.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = (Identity, CredentialState)>) -> Self {
        Self {
            entries: entries.into_iter().collect(),
        }
    }

    /// Credentials to shake hands with.
    ///
    /// # Errors
    /// [`IdentityError`]; of its variants only `Initializing` is worth waiting for.
    pub fn get(&self, identity: &Identity) -> Result<&Arc<Credentials>, IdentityError> {
        match self.entries.get(identity) {
            Some(CredentialState::Available(credentials)) => Ok(credentials),
            Some(CredentialState::Initializing) => {
                Err(IdentityError::Initializing(identity.clone()))
            }
            Some(CredentialState::Unavailable(reason)) => Err(IdentityError::Unavailable {
                identity: identity.clone(),
                reason: reason.clone(),
            }),
            None => Err(IdentityError::Unknown(identity.clone())),
        }
    }

    /// All entries, sorted by identity.
    pub fn entries(&self) -> impl Iterator<Item = (&Identity, &CredentialState)> {
        self.entries.iter()
    }
}
