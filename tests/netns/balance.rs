//! Few long connections are spread over the shards, whatever the kernel's hash says.

use corelane_harness::apps::{self, Server};
use corelane_harness::node::{Driver, Node};
use corelane_harness::pair::{Options, Pair, SERVER_PORT};

use crate::{CORELANE, live};

/// Left to the hash, one round of five is out of balance.
const ROUNDS: usize = 10;
const CONNECTIONS: u32 = 16;

with_both_drivers!(
    few_long_connections_are_spread_over_the_shards,
    connections_stay_where_they_arrive_when_told_so,
);

fn held(node: &Node) -> Vec<f64> {
    let metrics = node.metrics();
    let of = |shard| metrics.sum("corelane_shard_connections_open", &[("shard", shard)]);
    vec![of("0"), of("1")]
}

fn handed_over(node: &Node) -> f64 {
    let name = "corelane_connections_handed_over_total";
    node.metrics().sum(name, &[])
}

fn run(pair: &Pair, mut look: impl FnMut(&[f64])) {
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    for _ in 0..ROUNDS {
        let open = live::open(pair, SERVER_PORT, CONNECTIONS as usize);
        let held = held(&pair.client);
        assert_eq!(held.iter().sum::<f64>(), f64::from(CONNECTIONS));
        look(&held);
        drop(open);
        let gauge = "corelane_shard_connections_open";
        pair.client.wait_metric(gauge, &[], 0);
    }
}

fn few_long_connections_are_spread_over_the_shards(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    run(&pair, |held| {
        // Beyond three and a quarter of the other's, a shard hands over.
        let least = held.iter().copied().fold(f64::MAX, f64::min);
        assert!(least >= 6.0, "{held:?}");
    });
    assert!(handed_over(&pair.client) > 0.0);
}

fn connections_stay_where_they_arrive_when_told_so(driver: Driver) {
    let options = Options::new(driver).env("CORELANE_BALANCE", "false");
    let pair = Pair::start(CORELANE, options);
    run(&pair, |_| {});
    assert_eq!(handed_over(&pair.client), 0.0);
}
