//! Each kind takes its forms and refuses the others.

use std::time::Duration;

use super::*;
use crate::config::ForwardTarget;

fn refuses<K: Kind>(kind: &K, texts: &[&str]) {
    for text in texts {
        assert!(
            kind.parse(text).is_none(),
            "{text:?} must not be {}",
            kind.expected()
        );
    }
}

#[test]
fn booleans_are_spelled_exactly() {
    assert_eq!(
        (Bool.parse("true"), Bool.parse("false")),
        (Some(true), Some(false))
    );
    refuses(&Bool, &["True", "yes", "1", "", " true"]);
}

#[test]
fn integers_respect_both_bounds() {
    let kind = Integer(16_384_u32..=16_777_215);
    assert_eq!(kind.parse("16384"), Some(16_384));
    assert_eq!(kind.parse("16777215"), Some(16_777_215));
    refuses(
        &kind,
        &[
            "16383",
            "16777216",
            "-1",
            "1e5",
            "1_000_000",
            "",
            "99999999999",
        ],
    );
}

#[test]
fn durations_take_units_and_bare_seconds() {
    for (text, millis) in [
        ("5s", 5_000),
        ("500ms", 500),
        ("1m30s", 90_000),
        ("1h 5m", 3_900_000),
        ("24h", 86_400_000),
        ("7", 7_000),
    ] {
        assert_eq!(
            Span::positive().parse(text),
            Some(Duration::from_millis(millis)),
            "{text}"
        );
    }
    refuses(
        &Span::positive(),
        &["0", "0s", "5 parsecs", "-1s", "", "1.5", "99999999999s"],
    );
}

#[test]
fn cpu_quantities_are_rounded_up() {
    for (text, cpus) in [("16", 16), ("1", 1), ("500m", 1), ("2500m", 3), ("1.5", 2)] {
        assert_eq!(Cpus.parse(text), Some(cpus), "{text}");
    }
    refuses(&Cpus, &["0", "-1", "NaN", "inf", "two", "", "m", "100000"]);
}

#[test]
fn shard_counts_take_numbers_and_percentages() {
    assert_eq!(ShardCount.parse("0"), Some(ShardRule::Cpus));
    assert_eq!(ShardCount.parse("4"), Some(ShardRule::Count(4)));
    assert_eq!(ShardCount.parse("30%"), Some(ShardRule::Percent(30)));
    refuses(
        &ShardCount,
        &["0%", "101%", "-1", "4 ", "many", "%", "5000"],
    );
}

#[test]
fn workloads_have_exactly_three_parts_and_accounts_two() {
    let workload = WorkloadName.parse("default/client-0/client").unwrap();
    assert_eq!(
        (&*workload.namespace, &*workload.name),
        ("default", "client-0")
    );
    assert_eq!(&*workload.service_account, "client");
    refuses(&WorkloadName, &["a/b", "a/b/c/d", "a//c", "", "a/b/c\n"]);
    assert_eq!(Account.show(&Account.parse("a/b").unwrap()), "a/b");
    refuses(&Account, &["a", "a/b/c", "/b"]);
}

#[test]
fn targets_are_addresses_or_hostnames_with_a_port() {
    let address = ForwardTarget::Address("10.0.0.1:80".parse().unwrap());
    assert_eq!(Target.parse("10.0.0.1:80"), Some(address));
    let host = ForwardTarget::Hostname("db.default.example".into(), 5432);
    assert_eq!(Target.parse("db.default.example:5432"), Some(host));
    refuses(
        &Target,
        &[
            "db",
            "db:0",
            "db:70000",
            "10.0.0.1",
            "0.0.0.0:80",
            "-x:1",
            "a..b:1",
            "1.2.3:4",
            ":80",
        ],
    );
}

#[test]
fn what_is_shown_parses_to_the_same_value() {
    fn round<K: Kind>(kind: &K, text: &str)
    where
        K::Value: PartialEq + std::fmt::Debug,
    {
        let value = kind.parse(text).unwrap();
        assert_eq!(kind.parse(&kind.show(&value)), Some(value), "{text}");
    }
    round(&Bool, "true");
    round(&Span::positive(), "1h 5m");
    round(&Or("off", Address), "off");
    round(&Or("off", Address), "127.0.0.1:1");
    round(&Addresses, "127.0.0.1:1, [::1]:2");
    round(&WorkloadName, "a/b/c");
    round(&Target, "db:1");
    round(&ShardCount, "50%");
    round(&PowerOfTwo(64..=4096), "4096");
    round(&LogDirectives, "info,access=debug");
}

#[test]
fn rings_are_powers_of_two_and_filters_well_formed() {
    refuses(&PowerOfTwo(64..=4096), &["63", "65", "32", "8192"]);
    refuses(&LogDirectives, &["a=b=c", "info,x=loud"]);
    refuses(
        &Address,
        &["127.0.0.1", "localhost:1", "127.0.0.1:70000", "::1:5"],
    );
    refuses(&Name, &["a\u{0}b", "a\nb"]);
}
