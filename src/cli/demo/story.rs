//! What happens in the demo, step by step; every step checks what it shows.

use std::time::Duration;

use super::backend::GREETING;
use super::error::DemoError;
use super::facts::{Allowed, Bytes, Comparison, Facts, NodeFacts, Refused, Speed, Tls};
use super::load::{Client, Meter, median};
use super::log::Line;
use super::metrics;
use super::node::Node;
use super::report::Report;
use super::setup::{ALLOW_POLICY, DENY_POLICY, Who};
use super::watch::Watch;
use super::world::{World, client_bytes};

/// Rounds of each measurement; odd, for the median.
const ROUNDS: usize = 3;
/// Length of one measured transfer.
const BULK_TIME: Duration = Duration::from_millis(350);
/// Length of one measurement of requests.
const REQUESTS_TIME: Duration = Duration::from_millis(450);
/// Time for counters to reach what has already arrived at the client.
const COUNT_LIMIT: Duration = Duration::from_secs(3);

/// Plays the story on a stage that is set.
pub(super) fn play(world: &mut World, report: Report, watch: &Watch) -> Result<Facts, DemoError> {
    let meter = Meter::default();
    let nodes = describe_both(world, watch)?;
    report.opening(&nodes, world);
    let allowed = allowed(world, &meter, watch)?;
    report.allowed(&allowed);
    world.speak_as(Who::Intruder, watch)?;
    let refused = refused(world, watch)?;
    world.speak_as(Who::WebClient, watch)?;
    report.refused(&refused);
    report.measuring();
    let speed = compare(world, &meter, watch)?;
    report.speed(&speed);
    let (bytes, metric_samples) = account(world, &meter, watch)?;
    // Again: another process may have taken the part of node A.
    let nodes = describe_both(world, watch)?;
    report.bytes(&bytes, &nodes);
    Ok(Facts {
        ok: true,
        version: env!("CARGO_PKG_VERSION"),
        release_build: !cfg!(debug_assertions),
        nodes,
        server: world.backend.address(),
        allowed,
        refused,
        speed,
        bytes,
        metric_samples,
        seconds: watch.elapsed().as_secs_f64(),
    })
}

fn describe_both(world: &World, watch: &Watch) -> Result<Vec<NodeFacts>, DemoError> {
    let a = describe(&world.a, "speaks for the clients", watch)?;
    let b = describe(&world.b, "guards the server", watch)?;
    Ok(vec![a, b])
}

fn describe(node: &Node, part: &str, watch: &Watch) -> Result<NodeFacts, DemoError> {
    let page = node.metrics(watch)?;
    let driver = |label| metrics::label(&page, "corelane_driver_info", label).unwrap_or_default();
    let endpoints = node.plan.endpoints;
    Ok(NodeFacts {
        name: node.plan.name,
        pid: node.pid(),
        part: part.to_owned(),
        shards: metrics::sum(&page, "corelane_shards", &[]),
        driver: driver("driver"),
        driver_fallback: driver("fallback"),
        admin: endpoints.admin,
        metrics: endpoints.stats,
        readiness: endpoints.readiness,
        log: node.plan.log.display().to_string(),
    })
}

fn missing(node: &Node, what: &str) -> DemoError {
    DemoError::unexpected(
        format!("{what} in the log of {}", node.plan.name),
        "it is not there",
    )
}

/// The field, which the line must have.
fn field(node: &Node, line: &Line, name: &str) -> Result<String, DemoError> {
    line.field(name)
        .map(str::to_owned)
        .ok_or_else(|| missing(node, name))
}

fn is_end_of_connection(line: &Line) -> bool {
    line.scope == "access" && line.message == "connection complete"
}

/// The allowed client asks; then the logs of both nodes tell how it went.
fn allowed(world: &World, meter: &Meter, watch: &Watch) -> Result<Allowed, DemoError> {
    let who = Who::WebClient;
    let identity = who.identity().to_string();
    let entrance = world.entrance(who);
    let unreachable = || DemoError::io(format!("connect {} to {entrance}", who.name()));
    let stream = world.connect(who).map_err(unreachable())?;
    let mut client = Client::new(stream, meter, watch).map_err(unreachable())?;
    let answer = client.ask("/")?.map_err(DemoError::io(
        "get the answer that web-client is entitled to",
    ))?;
    drop(client);
    if answer.status != 200 || answer.beginning != GREETING {
        let found = format!("{} {:?}", answer.status, answer.beginning);
        return Err(DemoError::unexpected(format!("200 {GREETING:?}"), found));
    }
    let (a, b) = (&world.a, &world.b);
    let seen_by_a = a.line("web-client's connection", watch, |line| {
        is_end_of_connection(line) && line.has("src.identity", &identity)
    })?;
    let seen_by_b = b.line("web-client's connection", watch, |line| {
        is_end_of_connection(line) && line.has("src.identity", &identity)
    })?;
    let handshake = b.line("web-client's tunnel", watch, |line| {
        line.scope.ends_with("tunnel") && line.has("identity", &identity)
    })?;
    let decision = b.line("the policy that let web-client in", watch, |line| {
        line.scope.ends_with("authorization") && line.message == "allow policy match"
    })?;
    let policy = field(b, &decision, "policy")?;
    if policy != ALLOW_POLICY {
        return Err(DemoError::unexpected(
            format!("policy {ALLOW_POLICY} to allow"),
            policy,
        ));
    }
    Ok(Allowed {
        client: who.name(),
        entrance,
        status: answer.status,
        body: answer.beginning.trim_end().to_owned(),
        source_identity: field(b, &seen_by_b, "src.identity")?,
        destination_identity: field(a, &seen_by_a, "dst.identity")?,
        tunnel_to: field(a, &seen_by_a, "dst.addr")?,
        authority: field(a, &seen_by_a, "dst.hbone_addr")?,
        policy,
        tls: Tls {
            version: field(b, &handshake, "version")?,
            group: field(b, &handshake, "group")?,
            cipher: field(b, &handshake, "cipher")?,
        },
    })
}

/// The intruder asks, and must not get one byte.
fn refused(world: &World, watch: &Watch) -> Result<Refused, DemoError> {
    let who = Who::Intruder;
    let identity = who.identity().to_string();
    let entrance = world.entrance(who);
    let reached_before = world.backend.accepted();
    let meter = Meter::default();
    let stream = world
        .connect(who)
        .map_err(DemoError::io(format!("connect intruder to {entrance}")))?;
    let asked = Client::new(stream, &meter, watch)
        .map_err(DemoError::io("prepare the intruder's connection"))?
        .ask("/")?;
    let client_saw = match asked {
        Err(error) => error.to_string(),
        Ok(answer) => {
            let found = format!("it got {} {:?}", answer.status, answer.beginning);
            return Err(DemoError::unexpected("the intruder to be refused", found));
        }
    };
    let (a, b) = (&world.a, &world.b);
    let seen_by_b = b.line("the intruder's refusal", watch, |line| {
        line.scope == "access" && line.has("peer_identity", &identity)
    })?;
    let seen_by_a = a.line("the intruder's refusal", watch, |line| {
        line.scope == "access"
            && line.has("src.identity", &identity)
            && line.field("error").is_some()
    })?;
    let policy = field(b, &seen_by_b, "policy")?;
    if policy != DENY_POLICY {
        return Err(DemoError::unexpected(
            format!("policy {DENY_POLICY} to refuse"),
            policy,
        ));
    }
    let reached_server = world.backend.accepted() - reached_before;
    if reached_server != 0 || meter.totals().1 != 0 {
        let found = format!("{reached_server} connections did");
        return Err(DemoError::unexpected(
            "no connection of the intruder at the server",
            found,
        ));
    }
    Ok(Refused {
        client: who.name(),
        entrance,
        client_saw,
        source_identity: field(b, &seen_by_b, "peer_identity")?,
        destination_identity: field(b, &seen_by_b, "local_identity")?,
        policy,
        reason: field(b, &seen_by_b, "error")?,
        client_node_saw: field(a, &seen_by_a, "error")?,
        reached_server,
    })
}

/// Measures both ways in turns, so that whatever else the machine does hits both.
fn compare(world: &World, meter: &Meter, watch: &Watch) -> Result<Comparison, DemoError> {
    let uncounted = Meter::default();
    let direct = world
        .connect_directly()
        .map_err(DemoError::io("connect directly"))?;
    let mut direct =
        Client::new(direct, &uncounted, watch).map_err(DemoError::io("connect directly"))?;
    let tunnel = world
        .connect(Who::WebClient)
        .map_err(DemoError::io("connect by the tunnel"))?;
    let mut tunnel =
        Client::new(tunnel, meter, watch).map_err(DemoError::io("connect by the tunnel"))?;
    let mut rounds = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rounds.0.push(measure(&mut direct)?);
        rounds.1.push(measure(&mut tunnel)?);
        watch.check()?;
    }
    Ok(Comparison {
        rounds: ROUNDS,
        direct: medians(&rounds.0),
        tunnel: medians(&rounds.1),
    })
}

fn measure(client: &mut Client<'_>) -> Result<Speed, DemoError> {
    let bulk = client.bulk(BULK_TIME)?;
    let requests = client.requests(REQUESTS_TIME)?;
    let micros = |percent| requests.percentile(percent).as_secs_f64() * 1e6;
    Ok(Speed {
        bulk_gbit_per_s: bulk / 1e9,
        requests_per_s: requests.rate,
        p50_us: micros(50),
        p99_us: micros(99),
    })
}

fn medians(rounds: &[Speed]) -> Speed {
    let of = |value: fn(&Speed) -> f64| median(rounds.iter().map(value).collect());
    Speed {
        bulk_gbit_per_s: of(|round| round.bulk_gbit_per_s),
        requests_per_s: of(|round| round.requests_per_s),
        p50_us: of(|round| round.p50_us),
        p99_us: of(|round| round.p99_us),
    }
}

/// Compares what the client's sockets carried with what the nodes have counted.
fn account(world: &World, meter: &Meter, watch: &Watch) -> Result<(Bytes, usize), DemoError> {
    let client = meter.totals();
    let mut samples = 0;
    for (node, reporter, earlier) in [
        (&world.a, "source", world.earlier),
        (&world.b, "destination", (0, 0)),
    ] {
        let mut counted = (0, 0);
        let what = format!("agreement of {}", node.plan.name);
        let agreed = watch.until(&what, COUNT_LIMIT, || {
            let page = node.metrics(watch)?;
            let (sent, received) = client_bytes(&page, reporter);
            counted = (earlier.0 + sent, earlier.1 + received);
            Ok((counted == client).then(|| metrics::count(&page)))
        });
        match agreed {
            Ok(count) => samples += count,
            Err(DemoError::TimedOut { .. }) => {
                return Err(DemoError::unexpected(
                    format!(
                        "{} to have counted {client:?} bytes (sent, received)",
                        node.plan.name
                    ),
                    format!("its metrics say {counted:?}"),
                ));
            }
            Err(error) => return Err(error),
        }
    }
    let (sent, received) = client;
    Ok((
        Bytes {
            sent,
            received,
            nodes_agree: true,
        },
        samples,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_value_by_value() {
        let round = |bulk, p99| Speed {
            bulk_gbit_per_s: bulk,
            requests_per_s: 1.0,
            p50_us: 2.0,
            p99_us: p99,
        };
        let medians = medians(&[round(1.0, 90.0), round(3.0, 10.0), round(2.0, 20.0)]);
        assert_eq!(medians, round(2.0, 20.0));
    }
}
