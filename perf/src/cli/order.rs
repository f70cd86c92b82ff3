//! Turns arguments into an order: peers by name, variants, forms.

use std::fmt::Write as _;
use std::path::Path;

use corelane_harness::node::Driver;

use super::{AbArguments, Measuring, RunArguments};
use crate::error::{Error, Result};
use crate::peers::{self, Corelane, Kind, Peer, Programs, Way};
use crate::profile::Profiler;
use crate::run::Order;
use crate::tool;
use crate::work::{self, Amount, Work};

const SMOKE: Amount = Amount {
    rounds: 1,
    seconds: 1,
    idle: 200,
    few: 20,
    stalled: 3,
};
const SHORT: Amount = Amount {
    rounds: 3,
    seconds: 2,
    idle: 5_000,
    few: 100,
    stalled: 10,
};
const FULL: Amount = Amount {
    rounds: 5,
    seconds: 5,
    ..SHORT
};

/// What `perf/run` is to do.
pub(super) fn of_run(arguments: &RunArguments) -> Result<Order> {
    let (form, amount, chooses): (_, _, fn(Work, &Peer) -> bool) = if arguments.smoke {
        ("smoke", SMOKE, in_smoke)
    } else if arguments.full {
        ("full", FULL, |_, _| true)
    } else {
        ("short", SHORT, in_short)
    };
    let measuring = &arguments.measuring;
    let mut all = all_peers(&arguments.places.corelane, &settings(measuring)?);
    for text in &arguments.variant {
        let made = variant(text, &all)?;
        all.push(made);
    }
    let peers = if arguments.only.is_empty() {
        all
    } else {
        named(&arguments.only, all, |peer| &peer.name, "peer")?
    };
    // Who names peers or work wants to see them together.
    let chosen = !arguments.only.is_empty() || !measuring.work.is_empty();
    Ok(Order {
        form: form.into(),
        peers,
        works: works(measuring)?,
        chooses: if chosen { |_, _| true } else { chooses },
        amount: amount_of(amount, measuring),
        shards: measuring.shards.max(1),
        access_log: !measuring.no_access_log,
        programs: programs(&arguments.places.target_dir)?,
        profiler: arguments.profile.then(Profiler::find).transpose()?,
    })
}

/// What `perf/ab` is to do: both builds, relaying and tunnelling.
pub(super) fn of_ab(arguments: &AbArguments) -> Result<Order> {
    let measuring = &arguments.measuring;
    let settings = settings(measuring)?;
    let builds = [
        ("a", &arguments.places.corelane),
        ("b", &arguments.corelane_b),
    ];
    let mut peers = Vec::new();
    for (way, suffix) in [(Way::Passthrough, ""), (Way::Tunnel, "-hbone")] {
        for (letter, binary) in builds {
            let name = format!("corelane-{letter}{suffix}");
            peers.push(corelane(&name, binary, Driver::IoUring, way, &settings));
        }
    }
    Ok(Order {
        form: "ab".into(),
        peers,
        works: works(measuring)?,
        chooses: if measuring.work.is_empty() {
            in_ab
        } else {
            |_, _| true
        },
        amount: amount_of(Amount { rounds: 5, ..SHORT }, measuring),
        shards: measuring.shards.max(1),
        access_log: !measuring.no_access_log,
        programs: programs(&arguments.places.target_dir)?,
        profiler: None,
    })
}

/// Peers and work, for `--list`.
pub(super) fn list(order: &Order) -> String {
    let mut text = String::from("peers\n");
    for peer in &order.peers {
        let missing = peer.missing(&order.programs);
        let note = missing.map_or_else(String::new, |how| format!("  (not here: {how})"));
        let _ = writeln!(text, "  {}{note}", peer.name);
    }
    text.push_str("work\n");
    for work in &order.works {
        let _ = writeln!(text, "  {:<12} {}", work.name(), work.what());
    }
    text
}

/// Everything works, each kind of work with someone.
fn in_smoke(work: Work, peer: &Peer) -> bool {
    match work {
        Work::BulkUp => true,
        Work::Wrk64 => !matches!(peer.kind, Kind::Direct),
        Work::Tunnel => true,
        Work::BulkDown => matches!(peer.kind, Kind::Copy) || peer.name == "corelane-hbone",
        Work::Wrk512 | Work::Wrk1 => false,
        _ => peer.name == "corelane-hbone",
    }
}

/// What the targets are about, within five minutes.
fn in_short(work: Work, peer: &Peer) -> bool {
    let is = |names: &[&str]| names.contains(&peer.name.as_str());
    let tunnels = is(&["corelane-hbone", "envoy-hbone"]);
    // A variant that was asked for takes part in all of it.
    let extra = peer.is_corelane() && !STANDARD.contains(&peer.name.as_str());
    extra
        || match work {
            Work::BulkUp => !is(&["corelane-epoll", "corelane-hbone-epoll", "nginx"]),
            Work::BulkDown => tunnels || is(&["corelane", "haproxy", "envoy", "copy"]),
            Work::Wrk1 => tunnels || is(&["direct"]),
            Work::Wrk64 => tunnels || is(&["direct", "corelane", "haproxy", "envoy"]),
            Work::Connect => tunnels || is(&["corelane", "haproxy"]),
            Work::Tunnel => tunnels,
            Work::Crowd => is(&["corelane", "corelane-hbone"]),
            Work::Stalled => tunnels,
            Work::IdleMemory => tunnels || is(&["corelane", "haproxy"]),
            Work::BulkEight | Work::Wrk512 | Work::PingPong | Work::SlowUp | Work::SlowDown => {
                false
            }
        }
}

/// What tells two builds apart soonest.
fn in_ab(work: Work, _peer: &Peer) -> bool {
    matches!(
        work,
        Work::BulkUp | Work::BulkDown | Work::Wrk1 | Work::Wrk64 | Work::Connect | Work::Tunnel
    )
}

/// Names of the Corelanes that are always there.
const STANDARD: [&str; 4] = [
    "corelane",
    "corelane-epoll",
    "corelane-hbone",
    "corelane-hbone-epoll",
];

fn all_peers(binary: &Path, settings: &[(String, String)]) -> Vec<Peer> {
    let peer = |name: &str, kind| Peer {
        name: name.into(),
        kind,
    };
    let own = |name, driver, way| corelane(name, binary, driver, way, settings);
    vec![
        peer("direct", Kind::Direct),
        own(STANDARD[0], Driver::IoUring, Way::Passthrough),
        own(STANDARD[1], Driver::Epoll, Way::Passthrough),
        peer("haproxy", Kind::Haproxy),
        peer("nginx", Kind::Nginx),
        peer("envoy", Kind::Envoy(Way::Passthrough)),
        own(STANDARD[2], Driver::IoUring, Way::Tunnel),
        own(STANDARD[3], Driver::Epoll, Way::Tunnel),
        peer("envoy-hbone", Kind::Envoy(Way::Tunnel)),
        peer("copy", Kind::Copy),
    ]
}

fn corelane(
    name: &str,
    binary: &Path,
    driver: Driver,
    way: Way,
    settings: &[(String, String)],
) -> Peer {
    Peer {
        name: name.into(),
        kind: Kind::Corelane(Corelane {
            // Nodes run in folders of their own.
            binary: std::path::absolute(binary).unwrap_or_else(|_| binary.to_owned()),
            driver,
            way,
            settings: settings.to_vec(),
            sysctls: Vec::new(),
        }),
    }
}

/// `NAME=PEER,KEY=VALUE,…`
fn variant(text: &str, known: &[Peer]) -> Result<Peer> {
    let wrong = |why: &str| Error::Usage(format!("--variant {text}: {why}"));
    let (name, rest) = text
        .split_once('=')
        .ok_or_else(|| wrong("NAME=PEER,… is expected"))?;
    let mut parts = rest.split(',');
    let base = parts.next().unwrap_or_default();
    if name.is_empty() || known.iter().any(|peer| peer.name == name) {
        return Err(wrong("the name is taken, or empty"));
    }
    let found = known.iter().find(|peer| peer.name == base);
    let Some(Kind::Corelane(base)) = found.map(|peer| &peer.kind) else {
        return Err(wrong(&format!(
            "{base:?} is no Corelane of this run (--list)"
        )));
    };
    let mut corelane = base.clone();
    for part in parts {
        let (key, value) = key_value(part)?;
        match key.strip_prefix("sysctl.") {
            Some(key) => corelane.sysctls.push((key.to_owned(), value)),
            None => corelane.settings.push((key, value)),
        }
    }
    Ok(Peer {
        name: name.into(),
        kind: Kind::Corelane(corelane),
    })
}

fn settings(measuring: &Measuring) -> Result<Vec<(String, String)>> {
    measuring
        .corelane_config
        .iter()
        .map(|text| key_value(text))
        .collect()
}

fn key_value(text: &str) -> Result<(String, String)> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| Error::Usage(format!("{text:?} is not KEY=VALUE")))
}

fn works(measuring: &Measuring) -> Result<Vec<Work>> {
    if measuring.work.is_empty() {
        return Ok(work::ALL.to_vec());
    }
    let all = work::ALL
        .map(|work| (work.name().to_owned(), work))
        .to_vec();
    let chosen = named(&measuring.work, all, |(name, _)| name, "work")?;
    Ok(chosen.into_iter().map(|(_, work)| work).collect())
}

/// Those of `all` with these names, in the order of `all`.
fn named<T>(names: &[String], all: Vec<T>, name: fn(&T) -> &String, kind: &str) -> Result<Vec<T>> {
    for wanted in names {
        if !all.iter().any(|one| name(one) == wanted) {
            let known: Vec<&str> = all.iter().map(|one| name(one).as_str()).collect();
            let known = known.join(", ");
            return Err(Error::Usage(format!(
                "no {kind} {wanted:?}; there are: {known}"
            )));
        }
    }
    Ok(all
        .into_iter()
        .filter(|one| names.contains(name(one)))
        .collect())
}

fn amount_of(form: Amount, measuring: &Measuring) -> Amount {
    Amount {
        rounds: measuring.rounds.map_or(form.rounds, usize::from),
        seconds: measuring.seconds.unwrap_or(form.seconds),
        ..form
    }
}

fn programs(target_dir: &Path) -> Result<Programs> {
    let envoy = std::path::absolute(target_dir).map_err(Error::io("build folder"))?;
    let envoy = envoy.join("peers/envoy");
    Ok(Programs {
        own: tool::own_program(),
        envoy: envoy.exists().then_some(envoy),
        haproxy: tool::find("haproxy"),
        nginx: tool::find("nginx"),
        nginx_stream: peers::nginx_module(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Vec<Peer> {
        all_peers(Path::new("/bin/corelane"), &[])
    }

    #[test]
    fn a_variant_is_another_peer_with_more_settings() {
        let made = variant(
            "rustls=corelane-hbone,tls.records=rustls,sysctl.net.ipv4.tcp_rmem=1 2 3",
            &peers(),
        );
        let made = made.unwrap();
        let Kind::Corelane(corelane) = &made.kind else {
            panic!("{made:?}");
        };
        assert_eq!(made.name, "rustls");
        assert_eq!(corelane.way, Way::Tunnel);
        assert_eq!(corelane.settings, [("tls.records".into(), "rustls".into())]);
        assert_eq!(
            corelane.sysctls,
            [("net.ipv4.tcp_rmem".into(), "1 2 3".into())]
        );
    }

    #[test]
    fn variants_that_make_no_sense_are_refused() {
        for text in [
            "x",
            "x=haproxy,a=b",
            "corelane=corelane,a=b",
            "x=corelane,ab",
            "=corelane",
        ] {
            assert!(variant(text, &peers()).is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_known_ones() {
        let error = named(&["nobody".into()], peers(), |peer| &peer.name, "peer").unwrap_err();
        assert!(error.to_string().contains("corelane-hbone"), "{error}");
        let found = named(
            &["envoy".into(), "direct".into()],
            peers(),
            |p| &p.name,
            "peer",
        );
        let names: Vec<String> = found.unwrap().into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["direct", "envoy"]);
    }

    #[test]
    fn a_variant_is_measured_in_the_short_form_too() {
        let made = variant("x=corelane,a=b", &peers()).unwrap();
        assert!(in_short(Work::BulkUp, &made) && in_short(Work::Stalled, &made));
    }

    #[test]
    fn the_smoke_runs_every_peer_and_nearly_all_work() {
        for peer in peers() {
            assert!(in_smoke(Work::BulkUp, &peer), "{}", peer.name);
        }
        let idle = work::ALL.iter().filter(|work| {
            !peers()
                .iter()
                .any(|peer| work.is_for(peer) && in_smoke(**work, peer))
        });
        assert_eq!(idle.collect::<Vec<_>>(), [&Work::Wrk1, &Work::Wrk512]);
    }
}
