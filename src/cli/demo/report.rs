//! The story in words: short lines, aligned, understandable without knowing the code.

use super::facts::{Allowed, Bytes, Comparison, Facts, Failure, LastLines, NodeFacts, Refused};
use super::out::{Look, Out};
use super::setup::{STATE_FILE, Who};
use super::world::{Tunnel, World};

/// Tells the story on a terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    out: Out,
}

impl Report {
    /// A report written to `out`.
    pub(super) const fn new(out: Out) -> Self {
        Self { out }
    }

    fn heading(self, text: &str) {
        self.out.line("");
        self.out.line(self.out.paint(Look::Heading, text));
    }

    fn row(self, name: &str, text: &str) {
        self.out.line(format!("   {name:<10} {text}"));
    }

    /// Who is there.
    pub(super) fn opening(self, nodes: &[NodeFacts], world: &World) {
        let place = match world.tunnel {
            Tunnel::Forwards { .. } => "on loopback addresses of this machine",
            Tunnel::Capture { .. } => "in two network namespaces, connections captured by nftables",
        };
        self.heading(&format!("Two Corelane nodes, {place}"));
        for node in nodes {
            let NodeFacts {
                name,
                pid,
                part,
                shards,
                driver,
                ..
            } = node;
            self.row(
                name,
                &format!("{part}; process {pid}, {shards} shards on {driver}"),
            );
            if !node.driver_fallback.is_empty() {
                self.row("", &format!("(not io_uring: {})", node.driver_fallback));
            }
        }
        let server = world.backend.address();
        self.row(
            "server",
            &format!("plain HTTP/1.1 on {server}; knows nothing of TLS"),
        );
        self.row("clients", "web-client and intruder; plain HTTP/1.1 too");
        if cfg!(debug_assertions) {
            self.row(
                "",
                "(a debug build: slow. `cargo run --release -- demo` shows real speed)",
            );
        }
    }

    /// The request that gets through.
    pub(super) fn allowed(self, allowed: &Allowed) {
        let verdict = self.out.paint(Look::Good, "allowed");
        self.heading(&format!("1. {} asks the server: {verdict}", allowed.client));
        self.row("answer", &format!("{} {:?}", allowed.status, allowed.body));
        self.row(
            "path",
            &format!(
                "client > {} (node A) > {} (node B) > {}",
                allowed.entrance, allowed.tunnel_to, allowed.authority
            ),
        );
        self.row("from", &allowed.source_identity);
        self.row("to", &allowed.destination_identity);
        let tls = &allowed.tls;
        self.row(
            "tunnel",
            &format!(
                "HTTP/2 CONNECT in mutual {}, key exchange {}, cipher {}",
                tls.version, tls.group, tls.cipher
            ),
        );
        self.row("rule", &format!("policy {} matches", allowed.policy));
    }

    /// The request that does not.
    pub(super) fn refused(self, refused: &Refused) {
        let verdict = self.out.paint(Look::Bad, "refused");
        self.heading(&format!("2. {} asks the same: {verdict}", refused.client));
        self.row(
            "answer",
            &format!("none; the client sees: {}", refused.client_saw),
        );
        self.row("from", &refused.source_identity);
        self.row("to", &refused.destination_identity);
        self.row("rule", &format!("policy {} matches", refused.policy));
        self.row("node B", &refused.reason);
        self.row("node A", &refused.client_node_saw);
        self.row(
            "server",
            &format!("reached by {} connections", refused.reached_server),
        );
    }

    /// Bridges the seconds in which nothing is said.
    pub(super) fn measuring(self) {
        self.heading("3. web-client sends real traffic, directly and through both nodes in turns");
    }

    /// How fast it went.
    pub(super) fn speed(self, speed: &Comparison) {
        let Comparison {
            rounds,
            direct,
            tunnel,
        } = speed;
        let row = |name: &str, direct: String, tunnel: String| {
            self.out
                .line(format!("   {name:<22} {direct:>14} {tunnel:>14}"));
        };
        row(
            &format!("median of {rounds}"),
            "direct".to_owned(),
            "tunnel".to_owned(),
        );
        let gbit = |value: f64| format!("{value:.1} Gbit/s");
        row(
            "bulk download",
            gbit(direct.bulk_gbit_per_s),
            gbit(tunnel.bulk_gbit_per_s),
        );
        let rate = |value: f64| format!("{value:.0} /s");
        row(
            "requests, one by one",
            rate(direct.requests_per_s),
            rate(tunnel.requests_per_s),
        );
        let micros = |value: f64| format!("{value:.0} us");
        row(
            "time of a request, p50",
            micros(direct.p50_us),
            micros(tunnel.p50_us),
        );
        row(
            "time of a request, p99",
            micros(direct.p99_us),
            micros(tunnel.p99_us),
        );
    }

    /// Whether the counts agree.
    pub(super) fn bytes(self, bytes: &Bytes, nodes: &[NodeFacts]) {
        self.heading("4. Every byte is accounted for");
        let Bytes { sent, received, .. } = *bytes;
        self.row(
            "client",
            &format!("sent {} B, received {} B", grouped(sent), grouped(received)),
        );
        self.row("node A, B", "count exactly the same");
        for (title, NodeFacts { metrics, admin, .. }) in ["look at", ""].iter().zip(nodes) {
            self.row(
                title,
                &format!("http://{metrics}/metrics and http://{admin}/status"),
            );
        }
    }

    /// Where to look, while it still runs.
    pub(super) fn hints(self, world: &World, nodes: &[NodeFacts]) {
        self.heading("Still running. Try, in another terminal:");
        let hint = |command: String, why: &str| self.out.line(format!("   {command:<52} {why}"));
        let enter = world.namespaces.as_ref().map_or_else(
            || [String::new(), String::new()],
            |namespaces| namespaces.prefixes(),
        );
        let ask = |who| format!("{}curl http://{}/", enter[0], world.entrance(who));
        hint(ask(Who::WebClient), "allowed");
        if world.namespaces.is_none() {
            hint(ask(Who::Intruder), "refused");
        }
        for (node, enter) in nodes.iter().zip(&enter) {
            hint(
                format!("{enter}curl http://{}/metrics", node.metrics),
                node.name,
            );
            hint(format!("{enter}curl http://{}/status", node.admin), "");
            hint(format!("{enter}curl http://{}/config_dump", node.admin), "");
            hint(format!("tail -f {}", node.log), "");
        }
        let state = world.b.plan.folder.join(STATE_FILE);
        hint(
            format!("$EDITOR {}", state.display()),
            "read again when it changes:",
        );
        self.out
            .line("   without the server's authorizationPolicies the intruder gets through.");
        self.out.line("   Ctrl-C here ends everything.");
    }

    /// The end of a demo that went well.
    pub(super) fn closing(self, facts: &Facts) {
        let good = self.out.paint(Look::Good, "All as expected");
        self.out.line("");
        self.out.line(format!(
            "{good} after {:.1} s. Both nodes have ended; nothing is left behind.",
            facts.seconds
        ));
        self.out
            .line("Run it with --keep to look around while the nodes are up.");
    }

    /// The end of any other.
    pub(super) fn failure(self, failure: &Failure) {
        let bad = self.out.paint(Look::Bad, "The demo failed");
        self.out.complain(format!("\n{bad}: {}", failure.error));
        for LastLines { log, lines } in &failure.logs {
            self.out.complain(format!("\nlast lines of {log}:"));
            for line in lines {
                self.out.complain(format!("   {line}"));
            }
        }
    }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
