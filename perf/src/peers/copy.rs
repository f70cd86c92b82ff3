//! The plain copy relay on both hosts: each server port has its own pair of ports.

use super::{NodeProcess, Starter};
use crate::apps::{HTTP_PORT, IPERF_PORT};
use crate::error::Result;
use crate::lab::STATIC_OFFSET;
use crate::tool;

/// Ports the floor is measured on.
const PORTS: [u16; 2] = [IPERF_PORT, HTTP_PORT];

pub(super) fn start(starter: &Starter<'_>) -> Result<Vec<NodeProcess>> {
    let lab = starter.lab;
    let program = starter.programs.own.to_string_lossy();
    let shards = starter.shape.shards.to_string();
    let mut nodes = Vec::new();
    for port in PORTS {
        let between = port + STATIC_OFFSET;
        let ends = [(&lab.server, port), (&lab.client, between)];
        for (host, to) in ends {
            let mut command = tool::command(host, &program);
            let to = lab.at(to).to_string();
            let between = between.to_string();
            command.args(["app", "relay", "--port", &between, "--to", &to]);
            command.args(["--threads", &shards]);
            let name = format!("copy-{}-{port}", host.name());
            let mut process = tool::start(&name, command, lab.dir());
            tool::await_output(
                &name,
                &mut process,
                crate::apps::READY,
                super::START_LIMIT,
                starter.stop,
            )?;
            nodes.push(NodeProcess::Other(process));
        }
    }
    Ok(nodes)
}
