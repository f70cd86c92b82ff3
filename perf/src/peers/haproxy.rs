//! HAProxy in TCP mode with splice, towards the original destination.

use std::fs;

use super::{NodeProcess, Starter};
use crate::error::{Error, Result};
use crate::lab::CAPTURE_PORT;
use crate::tool;

pub(super) fn start(starter: &Starter<'_>) -> Result<Vec<NodeProcess>> {
    let lab = starter.lab;
    let config = lab.dir().join("haproxy.cfg");
    fs::write(&config, configuration(starter)).map_err(Error::io("haproxy.cfg"))?;
    let program = starter
        .programs
        .haproxy
        .as_deref()
        .unwrap_or_else(|| "haproxy".as_ref());
    let mut command = tool::command(&lab.client, &program.to_string_lossy());
    command.args(["-db", "-f"]).arg(&config);
    let node = starter.listening("haproxy", command, &lab.client, CAPTURE_PORT)?;
    Ok(vec![node])
}

/// A server without an address is the destination the client meant; `maxconn` fits two descriptors
/// for each connection, and pipes, into the 20,000 that common hard limits allow.
fn configuration(starter: &Starter<'_>) -> String {
    let log = if starter.shape.access_log {
        "    log stdout format raw local0 info\n    option tcplog\n"
    } else {
        ""
    };
    format!(
        "global
    nbthread {}
    maxconn 7000
    maxpipes 1000
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    option splice-request
    option splice-response
{log}frontend captured
    bind :{CAPTURE_PORT}
    default_backend meant
backend meant
    server meant 0.0.0.0:0
",
        starter.shape.shards
    )
}
