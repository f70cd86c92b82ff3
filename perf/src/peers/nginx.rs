//! nginx's stream module: one port for each destination, since it cannot ask for the original one.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{NodeProcess, Programs, Starter};
use crate::apps::PORTS;
use crate::error::{Error, Result};
use crate::lab::STATIC_OFFSET;
use crate::tool;

const MODULE: &str = "ngx_stream_module.so";
const MODULE_DIRS: [&str; 3] = [
    "/usr/lib/nginx/modules",
    "/usr/lib64/nginx/modules",
    "/usr/share/nginx/modules",
];

/// The module, where distributions put it.
pub(super) fn module() -> Option<PathBuf> {
    let paths = MODULE_DIRS.map(|dir| Path::new(dir).join(MODULE));
    paths.into_iter().find(|path| path.is_file())
}

pub(super) fn missing(programs: &Programs) -> Option<String> {
    let built_in = |nginx: &PathBuf| {
        let output = Command::new(nginx).arg("-V").output();
        output.is_ok_and(|output| has_stream(&String::from_utf8_lossy(&output.stderr)))
    };
    let nginx = programs.nginx.as_ref();
    let there = nginx.is_some_and(|nginx| programs.nginx_stream.is_some() || built_in(nginx));
    (!there).then(|| "apt-get install nginx-light libnginx-mod-stream".into())
}

/// Whether the module is part of the program: `--with-stream`, not `--with-stream=dynamic`.
fn has_stream(build_options: &str) -> bool {
    build_options
        .split_whitespace()
        .any(|option| option == "--with-stream")
}

pub(super) fn start(starter: &Starter<'_>) -> Result<Vec<NodeProcess>> {
    let lab = starter.lab;
    let config = lab.dir().join("nginx.conf");
    fs::write(&config, configuration(starter)).map_err(Error::io("nginx.conf"))?;
    let program = starter
        .programs
        .nginx
        .as_deref()
        .unwrap_or_else(|| "nginx".as_ref());
    let mut command = tool::command(&lab.client, &program.to_string_lossy());
    command.arg("-c").arg(&config).arg("-p").arg(lab.dir());
    let port = PORTS[0] + STATIC_OFFSET;
    Ok(vec![starter.listening(
        "nginx",
        command,
        &lab.client,
        port,
    )?])
}

fn configuration(starter: &Starter<'_>) -> String {
    let dir = starter.lab.dir().display();
    let load = starter.programs.nginx_stream.as_ref();
    let load = load.map_or_else(String::new, |m| format!("load_module {};\n", m.display()));
    let mut servers = String::new();
    for port in PORTS {
        let (listen, to) = (port + STATIC_OFFSET, starter.lab.at(port));
        writeln!(
            servers,
            "    server {{ listen {listen} backlog=8192; proxy_pass {to}; }}"
        )
        .expect("to a string");
    }
    let log = if starter.shape.access_log {
        format!(
            "    log_format line '$remote_addr [$time_local] $status $bytes_sent $bytes_received $session_time';
    access_log {dir}/access.log line;\n"
        )
    } else {
        "    access_log off;\n".into()
    };
    format!(
        "{load}daemon off;
user root;
worker_processes {};
worker_rlimit_nofile 20000;
error_log stderr warn;
pid {dir}/nginx.pid;
events {{ worker_connections 15000; }}
stream {{
    proxy_timeout 1h;
{log}{servers}}}
",
        starter.shape.shards
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_must_be_loaded_is_not_built_in() {
        assert!(has_stream(
            "configure arguments: --with-stream --with-threads"
        ));
        assert!(!has_stream(
            "configure arguments: --with-stream=dynamic --with-stream_ssl_module"
        ));
    }
}
