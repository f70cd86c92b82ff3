//! Says in words why a connection is allowed or refused, policy by policy.
//!
//! Evaluates with the same predicates as `authorize`, so an explanation is never a second opinion.
//! For logs of refused connections and for operators; far too slow for every connection.

use std::fmt::Write;

use super::authorize::matching::{self, PrincipalText, Subject, Unmet};
use super::authorize::{ConnectionFacts, Denied, applying, authorize};
use crate::model::policy::{Policy, PolicyAction, PolicyClause, PolicyScope};
use crate::snapshot::Snapshot;

/// The whole story of one decision: both sides, the verdict, and for each policy that applies
/// which rule matched or what stood in the way. Several lines, each ended by a line feed.
#[must_use]
pub fn explain(facts: &ConnectionFacts, snapshot: &Snapshot) -> String {
    let principal = PrincipalText::new(facts.identity.as_deref());
    let subject = Subject::new(facts, &principal);
    let mut text = Text(String::new());
    text.line(0, format_args!("source: {}", source(facts)));
    text.line(0, format_args!("destination: {}", destination(facts)));
    match authorize(facts, snapshot).verdict {
        Ok(_) => text.line(0, format_args!("verdict: allowed")),
        Err(denied) => text.line(0, format_args!("verdict: refused, {denied}")),
    }
    let mut none = true;
    for policy in applying(&facts.destination, snapshot) {
        none = false;
        text.policy(policy, &subject);
    }
    for key in &facts.destination.authorization_policies {
        if snapshot.policy(key).is_none() {
            none = false;
            text.line(
                0,
                format_args!("{key}: attached to the workload but not known"),
            );
        }
    }
    if none {
        text.line(0, format_args!("no policy applies to this workload"));
    }
    text.0
}

/// One line for the log of a refused connection: both identities, and the rule when a deny policy
/// decided.
#[must_use]
pub fn refusal(facts: &ConnectionFacts, snapshot: &Snapshot, denied: &Denied) -> String {
    let mut text = format!("{} to {}: {denied}", source(facts), destination(facts));
    if let Denied::Explicit { policy: key } = denied {
        let principal = PrincipalText::new(facts.identity.as_deref());
        let subject = Subject::new(facts, &principal);
        let rule = applying(&facts.destination, snapshot)
            .filter(|policy| policy.action == PolicyAction::Deny && !policy.dry_run)
            .filter(|policy| policy.key() == **key)
            .find_map(|policy| matching::matching_rule(policy, &subject));
        if let Some(rule) = rule {
            append(&mut text, format_args!(", rule {}", rule + 1));
        }
    }
    text
}

fn source(facts: &ConnectionFacts) -> String {
    match &facts.identity {
        Some(identity) => format!("{identity} ({})", facts.source_ip),
        None => format!("no identity ({})", facts.source_ip),
    }
}

fn destination(facts: &ConnectionFacts) -> String {
    let address = std::net::SocketAddr::new(facts.destination_ip, facts.destination_port);
    format!("{} ({address})", facts.destination.identity())
}

/// Text that grows by indented lines.
struct Text(String);

impl Text {
    fn line(&mut self, indent: usize, content: std::fmt::Arguments<'_>) {
        append(&mut self.0, format_args!("{:indent$}{content}\n", ""));
    }

    fn policy(&mut self, policy: &Policy, subject: &Subject<'_>) {
        let key = policy.key();
        let action = match policy.action {
            PolicyAction::Allow => "allow",
            PolicyAction::Deny => "deny",
        };
        let scope = match policy.scope {
            PolicyScope::Global => "global",
            PolicyScope::Namespace => "namespace",
            PolicyScope::WorkloadSelector => "workload",
        };
        let dry_run = if policy.dry_run { ", dry run" } else { "" };
        if let Some(rule) = matching::matching_rule(policy, subject) {
            let rule = rule + 1;
            self.line(
                0,
                format_args!("{key} ({action}, {scope}{dry_run}): rule {rule} matches"),
            );
            return;
        }
        self.line(
            0,
            format_args!("{key} ({action}, {scope}{dry_run}): does not match"),
        );
        if policy.rules.is_empty() {
            self.line(2, format_args!("it has no rules"));
        }
        for (rule_number, rule) in (1..).zip(&policy.rules) {
            for (clause_number, clause) in (1..).zip(rule) {
                self.clause((rule_number, clause_number), clause, subject);
            }
        }
    }

    /// Says nothing of a clause that holds: it does not stand in the way.
    fn clause(&mut self, number: (usize, usize), clause: &PolicyClause, subject: &Subject<'_>) {
        let reasons: Vec<Unmet> = clause
            .iter()
            .filter_map(|m| matching::check(m, subject).err())
            .collect();
        if reasons.len() < clause.len() {
            return;
        }
        let (rule, clause) = number;
        for (m, unmet) in (1..).zip(reasons) {
            let at = format_args!("rule {rule}, clause {clause}, match {m}");
            match unmet {
                Unmet::Empty => self.line(2, format_args!("{at}: declares nothing")),
                Unmet::Outside(field) => {
                    let field = field.as_str();
                    self.line(2, format_args!("{at}: none of {field} holds"));
                }
                Unmet::Excluded(field) => {
                    let field = field.as_str();
                    self.line(2, format_args!("{at}: one of not_{field} holds"));
                }
            }
        }
    }
}

/// Writing to a `String` cannot fail.
fn append(text: &mut String, content: std::fmt::Arguments<'_>) {
    let _infallible = text.write_fmt(content);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decision::fixture::{self, Mesh};
    use crate::model::policy::PolicyMatch;

    fn facts(identity: &str) -> ConnectionFacts {
        ConnectionFacts {
            identity: Some(Arc::new(identity.parse().unwrap())),
            source_ip: "10.0.0.1".parse().unwrap(),
            destination_ip: "10.0.0.2".parse().unwrap(),
            destination_port: 8080,
            destination: Arc::new(crate::model::workload::Workload {
                authorization_policies: vec!["ns1/absent".into()],
                ..fixture::workload("ns1", "server", &["10.0.0.2"])
            }),
        }
    }

    fn mesh() -> Arc<Snapshot> {
        let of_client = |port| PolicyMatch {
            namespaces: vec![fixture::exact("clients")],
            destination_ports: vec![port],
            ..PolicyMatch::default()
        };
        let not_client = PolicyMatch {
            not_principals: vec![fixture::exact("td/ns/clients/sa/a")],
            ..PolicyMatch::default()
        };
        Mesh::default()
            .policy(Policy {
                action: PolicyAction::Deny,
                rules: vec![
                    vec![vec![of_client(1)]],
                    vec![vec![of_client(2), not_client, PolicyMatch::default()]],
                ],
                ..fixture::policy("ns1/two-rules")
            })
            .policy(Policy {
                action: PolicyAction::Deny,
                scope: PolicyScope::Global,
                rules: vec![vec![vec![of_client(1)]], vec![vec![of_client(8080)]]],
                ..fixture::policy("root/by-port")
            })
            .policy(Policy {
                dry_run: true,
                rules: vec![],
                ..fixture::policy("ns1/nothing")
            })
            .snapshot()
    }

    #[test]
    fn an_explanation_names_both_sides_the_verdict_and_what_each_policy_lacked() {
        let text = explain(&facts("spiffe://td/ns/clients/sa/a"), &mesh());
        for line in [
            "source: spiffe://td/ns/clients/sa/a (10.0.0.1)\n",
            "destination: spiffe://cluster.local/ns/ns1/sa/default (10.0.0.2:8080)\n",
            "verdict: refused, explicitly denied by: root/by-port\n",
            "ns1/two-rules (deny, namespace): does not match\n",
            "  rule 1, clause 1, match 1: none of destination_ports holds\n",
            "  rule 2, clause 1, match 2: one of not_principals holds\n",
            "  rule 2, clause 1, match 3: declares nothing\n",
            "root/by-port (deny, global): rule 2 matches\n",
            "ns1/nothing (allow, namespace, dry run): does not match\n  it has no rules\n",
            "ns1/absent: attached to the workload but not known\n",
        ] {
            assert!(text.contains(line), "{line:?} is missing in\n{text}");
        }
    }

    #[test]
    fn a_workload_without_policies_is_explained_as_such() {
        let facts = ConnectionFacts {
            identity: None,
            destination: Arc::new(fixture::workload("ns2", "server", &["10.0.0.2"])),
            ..facts("spiffe://td/ns/clients/sa/a")
        };
        let text = explain(&facts, &Mesh::default().snapshot());
        assert!(text.contains("source: no identity (10.0.0.1)\n"), "{text}");
        assert!(text.contains("verdict: allowed\n"), "{text}");
        assert!(text.contains("no policy applies"), "{text}");
    }

    #[test]
    fn a_refusal_names_the_rule_and_both_identities() {
        let mesh = mesh();
        let facts = facts("spiffe://td/ns/clients/sa/a");
        let denied = authorize(&facts, &mesh).verdict.unwrap_err();
        assert_eq!(
            refusal(&facts, &mesh, &denied),
            "spiffe://td/ns/clients/sa/a (10.0.0.1) to \
             spiffe://cluster.local/ns/ns1/sa/default (10.0.0.2:8080): \
             explicitly denied by: root/by-port, rule 2"
        );
        assert!(
            refusal(&facts, &mesh, &Denied::NoneAllowed)
                .ends_with(": allow policies exist, but none allowed")
        );
    }
}
