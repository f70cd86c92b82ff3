//! Facts and policies → Permit or Denied (spec: authorization.md).

pub(super) mod matching;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use self::matching::{PrincipalText, Subject};
use crate::model::close::CloseReason;
use crate::model::identity::Identity;
use crate::model::policy::{Policy, PolicyAction, PolicyScope};
use crate::model::workload::Workload;
use crate::snapshot::{PolicyGroup, Snapshot};

/// What is known about a connection when it is authorized.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    /// Identity proven by TLS; none on plain text.
    pub identity: Option<Arc<Identity>>,
    /// TCP peer, canonical.
    pub source_ip: IpAddr,
    /// Local address, canonical.
    pub destination_ip: IpAddr,
    /// Resolved application port.
    pub destination_port: u16,
    /// The workload it is for, as the snapshot has it now.
    pub destination: Arc<Workload>,
}

/// Proof of authorization. On the inbound side only [`authorize`] makes one.
#[derive(Debug)]
#[must_use]
pub struct Permit(());

/// Why a connection was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A deny policy matches.
    Explicit {
        /// `namespace/name`.
        policy: Arc<str>,
    },
    /// Allow policies exist and none matches.
    NoneAllowed,
    /// The workload lists a policy that is not known. The caller waits for it up to 1 s.
    PolicyUnknown {
        /// `namespace/name`.
        policy: Arc<str>,
    },
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Explicit { policy } => write!(f, "explicitly denied by: {policy}"),
            Self::NoneAllowed => f.write_str("allow policies exist, but none allowed"),
            Self::PolicyUnknown { policy } => {
                write!(
                    f,
                    "policy {policy} is attached to the workload but not known yet"
                )
            }
        }
    }
}

impl Denied {
    /// The policy that refused, where it is one.
    #[must_use]
    pub const fn policy(&self) -> Option<&Arc<str>> {
        match self {
            Self::Explicit { policy } | Self::PolicyUnknown { policy } => Some(policy),
            Self::NoneAllowed => None,
        }
    }
}

impl From<Denied> for CloseReason {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied.to_string())
    }
}

/// One line of what the evaluation saw, for logs and counters (authorization 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Fixed text, e.g. `dry-run: deny policy match`.
    pub text: &'static str,
    /// The policy meant, if one is.
    pub policy: Option<Arc<Policy>>,
}

/// Verdict and what was seen on the way.
#[derive(Debug)]
pub struct Decision {
    /// Permit, or why not.
    pub verdict: Result<Permit, Denied>,
    /// In the order of evaluation.
    pub notes: Vec<Note>,
}

/// Decides on one connection (authorization 3 and 4).
///
/// A matching deny always wins and is named. Short of that, a workload that lists a policy which
/// is not known is refused: whatever that policy says might change the verdict.
#[must_use]
pub fn authorize(facts: &ConnectionFacts, snapshot: &Snapshot) -> Decision {
    let principal = PrincipalText::new(facts.identity.as_deref());
    let subject = Subject::new(facts, &principal);
    let workload = &facts.destination;
    let mut allows = Allows::default();
    let mut policies = Vec::new();
    for group in snapshot.policy_groups(&workload.namespace) {
        allows.add(group.has_allow(false), group.has_allow(true));
        policies.extend(group.candidates(&subject.traits()));
    }
    for policy in listed(workload, snapshot) {
        let is_allow = policy.action == PolicyAction::Allow;
        allows.add(is_allow && !policy.dry_run, is_allow && policy.dry_run);
        policies.push(policy);
    }
    let unknown = || first_unknown(workload, snapshot);
    decide(&policies, allows, unknown, &subject)
}

/// As [`authorize`], but looks at every policy that applies: the same decision, slowly. Against it the
/// index is tested and measured.
#[must_use]
pub fn authorize_by_walk(facts: &ConnectionFacts, snapshot: &Snapshot) -> Decision {
    let principal = PrincipalText::new(facts.identity.as_deref());
    let subject = Subject::new(facts, &principal);
    let workload = &facts.destination;
    let policies: Vec<_> = applying(workload, snapshot).collect();
    let mut allows = Allows::default();
    for policy in policies
        .iter()
        .filter(|policy| policy.action == PolicyAction::Allow)
    {
        allows.add(!policy.dry_run, policy.dry_run);
    }
    let unknown = || first_unknown(workload, snapshot);
    decide(&policies, allows, unknown, &subject)
}

/// Policies that apply to `workload`, each once: those of its namespace, the global ones, and the
/// ones it lists, whatever their scope.
pub(super) fn applying<'a>(
    workload: &'a Workload,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = &'a Arc<Policy>> {
    let by_scope = snapshot.policy_groups(&workload.namespace);
    by_scope
        .flat_map(PolicyGroup::iter)
        .chain(listed(workload, snapshot))
}

/// Policies that the workload lists and that do not apply to it anyway.
fn listed<'a>(
    workload: &'a Workload,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = &'a Arc<Policy>> {
    workload
        .authorization_policies
        .iter()
        .filter_map(|key| snapshot.policy(key))
        .filter(|policy| !applies_by_scope(policy, workload))
}

fn applies_by_scope(policy: &Policy, workload: &Workload) -> bool {
    match policy.scope {
        PolicyScope::Global => true,
        PolicyScope::Namespace => policy.namespace == workload.namespace,
        PolicyScope::WorkloadSelector => false,
    }
}

/// First key the workload lists that names no known policy.
fn first_unknown(workload: &Workload, snapshot: &Snapshot) -> Option<Arc<str>> {
    workload
        .authorization_policies
        .iter()
        .find(|key| snapshot.policy(key).is_none())
        .cloned()
}

/// Evaluates in the order deny, unknown, allow. `policies` are those that may match, `allows` tells of
/// all that apply.
fn decide(
    policies: &[&Arc<Policy>],
    allows: Allows,
    unknown: impl FnOnce() -> Option<Arc<str>>,
    subject: &Subject<'_>,
) -> Decision {
    let mut notes = Vec::new();
    let mut denied_by = None;
    for policy in policies {
        match (policy.action, policy.dry_run) {
            (PolicyAction::Deny, true) => {
                if matching::policy_matches(policy, subject) {
                    notes.push(Note::of("dry-run: deny policy match", policy));
                }
            }
            (PolicyAction::Deny, false) => {
                if denied_by.is_none() && matching::policy_matches(policy, subject) {
                    denied_by = Some(policy);
                }
            }
            (PolicyAction::Allow, _) => {}
        }
    }
    let verdict = if let Some(policy) = denied_by {
        notes.push(Note::of("deny policy match", policy));
        Err(Denied::Explicit {
            policy: policy.key().into(),
        })
    } else if let Some(policy) = unknown() {
        Err(Denied::PolicyUnknown { policy })
    } else {
        evaluate_allows(policies, allows, subject, &mut notes)
    };
    Decision { verdict, notes }
}

/// Which kinds of allow policy apply.
#[derive(Clone, Copy, Default)]
struct Allows {
    enforced: bool,
    dry_run: bool,
}

impl Allows {
    const fn add(&mut self, enforced: bool, dry_run: bool) {
        self.enforced |= enforced;
        self.dry_run |= dry_run;
    }
}

fn evaluate_allows(
    policies: &[&Arc<Policy>],
    allows: Allows,
    subject: &Subject<'_>,
    notes: &mut Vec<Note>,
) -> Result<Permit, Denied> {
    let mut allowed_by = None;
    if allows.enforced || allows.dry_run {
        let before = notes.len();
        let is_allow = |policy: &&&Arc<Policy>| policy.action == PolicyAction::Allow;
        for policy in policies.iter().filter(is_allow) {
            if policy.dry_run {
                if matching::policy_matches(policy, subject) {
                    notes.push(Note::of("dry-run: allow policy match", policy));
                }
            } else if allowed_by.is_none() && matching::policy_matches(policy, subject) {
                allowed_by = Some(policy);
            }
        }
        if !allows.enforced && notes.len() == before {
            notes.push(Note::plain("dry-run: no allow policies match"));
        }
    }
    if !allows.enforced {
        notes.push(Note::plain("no allow policies, allow"));
        return Ok(Permit(()));
    }
    match allowed_by {
        Some(policy) => {
            notes.push(Note::of("allow policy match", policy));
            Ok(Permit(()))
        }
        None => {
            notes.push(Note::plain("no allow policies matched"));
            Err(Denied::NoneAllowed)
        }
    }
}

impl Note {
    fn of(text: &'static str, policy: &Arc<Policy>) -> Self {
        Self {
            text,
            policy: Some(Arc::clone(policy)),
        }
    }

    const fn plain(text: &'static str) -> Self {
        Self { text, policy: None }
    }
}

impl Permit {
    /// The permit of a connection that leaves a local workload. Policies protect destinations, so
    /// the far side decides (authorization 5); never for anything that arrives.
    pub const fn outbound() -> Self {
        Self(())
    }
}

#[cfg(test)]
impl Permit {
    /// A permit without a decision, for tests of stages that spend one.
    pub const fn unearned_for_test() -> Self {
        Self(())
    }
}

#[cfg(test)]
mod tests;
