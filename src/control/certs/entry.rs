//! One identity's certificate: what is held, what went wrong, when it is due.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{Digest, SHA256, digest};

use super::Fetched;
use super::schedule::{Alarm, Backoff, ExpiryWatch};
use crate::model::identity::Identity;
use crate::tls::TlsOptions;
use crate::tls::credentials::{CredentialState, Credentials, Material, Validity};
use crate::tls::revocation::RevocationList;

/// State of one identity.
#[derive(Debug, Default)]
pub(super) struct Entry {
    held: Option<Held>,
    failure: Option<String>,
    watch: ExpiryWatch,
    pub(super) backoff: Backoff,
    pub(super) fetching: bool,
    pub(super) next_fetch: Option<SystemTime>,
}

#[derive(Debug)]
struct Held {
    credentials: Arc<Credentials>,
    /// Of the material, which itself is not kept.
    fingerprint: [Digest; 3],
}

/// What came of a fetch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The material is what is held already.
    Same,
    /// It is now held.
    Replaced {
        /// What the operator should know.
        warnings: Vec<String>,
    },
    /// It was not usable; the one held stays.
    Kept {
        /// Why.
        why: String,
    },
    /// It was not usable and there is no other.
    Unavailable {
        /// Why.
        why: String,
    },
}

impl Entry {
    pub(super) fn held(&self) -> Option<&Arc<Credentials>> {
        self.held.as_ref().map(|held| &held.credentials)
    }

    /// Whether there is neither a certificate nor an error yet.
    pub(super) fn is_coming(&self) -> bool {
        self.held.is_none() && self.failure.is_none()
    }

    /// What the shards get to see.
    pub(super) fn state(&self) -> CredentialState {
        match (&self.held, &self.failure) {
            (Some(held), _) => CredentialState::Available(Arc::clone(&held.credentials)),
            (None, Some(why)) => CredentialState::Unavailable(why.clone()),
            (None, None) => CredentialState::Initializing,
        }
    }

    /// Takes new material if it is no worse than what is held.
    pub(super) fn offer(
        &mut self,
        identity: &Identity,
        fetched: &Fetched,
        (options, revocations): (TlsOptions, Option<&RevocationList>),
        now: SystemTime,
    ) -> Outcome {
        let fingerprint = fingerprint(&fetched.material);
        if let Some(held) = &self.held
            && same(&held.fingerprint, &fingerprint)
        {
            self.succeeded(now);
            return Outcome::Same;
        }
        let loaded = match Credentials::load(identity, &fetched.material, options, now) {
            Ok(loaded) => loaded,
            Err(error) => return self.fail(error.to_string(), now),
        };
        if let Some(list) = revocations {
            loaded.enforce(list);
        }
        if self.holds_current(now) && loaded.validity(now) != Validity::Current {
            let why = loaded.warnings().join("; ");
            return self.fail(why, now);
        }
        let warnings = fetched.warnings.iter().chain(loaded.warnings()).cloned();
        let warnings = warnings.collect();
        self.held = Some(Held {
            credentials: Arc::new(loaded),
            fingerprint,
        });
        self.watch = ExpiryWatch::default();
        self.succeeded(now);
        Outcome::Replaced { warnings }
    }

    /// Takes note of a failure.
    pub(super) fn fail(&mut self, why: String, now: SystemTime) -> Outcome {
        self.backoff.failed(now);
        if self.held.is_some() {
            return Outcome::Kept { why };
        }
        self.failure = Some(why.clone());
        Outcome::Unavailable { why }
    }

    /// Whether what is held can be used at `now`.
    pub(super) fn holds_current(&self, now: SystemTime) -> bool {
        self.held()
            .is_some_and(|held| held.validity(now) == Validity::Current)
    }

    /// A certificate out of its time is held for want of a better one; the pauses go on growing.
    fn succeeded(&mut self, now: SystemTime) {
        self.failure = None;
        if self.holds_current(now) {
            self.backoff = Backoff::default();
        } else {
            self.backoff.failed(now);
        }
    }

    /// An alarm about the end of the certificate held, if one is due.
    pub(super) fn alarm(&mut self, now: SystemTime) -> Option<Alarm> {
        let held = self.held.as_ref()?;
        let (from, until) = (held.credentials.not_before(), held.credentials.not_after());
        self.watch.check(from, until, now)
    }
}

fn fingerprint(material: &Material) -> [Digest; 3] {
    [&material.chain, &material.key, &material.roots].map(|pem| digest(&SHA256, &pem.bytes))
}

fn same(one: &[Digest; 3], other: &[Digest; 3]) -> bool {
    one.iter().zip(other).all(|(a, b)| a.as_ref() == b.as_ref())
}
