//! The built program under a service manager: reports, signs of life, SIGHUP and the end.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use corelane_harness::loopback::Block;
use corelane_harness::process::Process;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);

const STATE: &str = "workloads:
- {uid: a, name: a, namespace: default, serviceAccount: a, workloadIps: [\"127.0.0.1\"], services: {}}
";

/// The manager's end.
struct Listener(UnixDatagram);

impl Listener {
    fn next(&self) -> String {
        let mut buffer = [0; 1_024];
        let length = self.0.recv(&mut buffer).expect("a report in time");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Waits for a report with this line.
    fn wait(&self, line: &str) -> String {
        loop {
            let report = self.next();
            if report.lines().any(|reported| reported == line) {
                return report;
            }
        }
    }
}

#[test]
fn a_node_reports_to_its_supervisor_from_start_to_end() {
    let (block, dir) = (Block::take(), tempfile::tempdir().unwrap());
    let ip = block.ip(1);
    fs::write(dir.path().join("state.yaml"), STATE).unwrap();
    let config = format!(
        "mode: node
localState: state.yaml
shards: {{count: 2, pin: false}}
listeners:
  outbound: off
  inboundPlaintext: off
  inbound: {ip}:15008
  admin: {ip}:15000
  stats: {ip}:15020
  readiness: {ip}:15021
timeouts: {{drain: 7s}}
"
    );
    fs::write(dir.path().join("corelane.yaml"), config).unwrap();
    let socket = dir.path().join("notify");
    let listener = Listener(UnixDatagram::bind(&socket).unwrap());
    listener.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
    command
        .args(["proxy", "--config", "corelane.yaml"])
        .env_clear()
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "3000000")
        .current_dir(dir.path());
    let mut node = Process::start("node", command, dir.path());

    assert_eq!(listener.next(), "READY=1\n", "before anything else");
    listener.wait("STATUS=serving");
    listener.wait("WATCHDOG=1");
    listener.wait("WATCHDOG=1");

    // A reload ends nothing, is over when the file was read, and says so when the file is bad.
    fs::write(dir.path().join("state.yaml"), "workloads: 7\n").unwrap();
    node.signal(Signal::HUP);
    listener.wait("RELOADING=1");
    listener.wait("READY=1");
    node.wait_output("the changed state file is refused", PATIENCE);
    fs::write(
        dir.path().join("state.yaml"),
        STATE.replace("name: a", "name: b"),
    )
    .unwrap();
    node.signal(Signal::HUP);
    listener.wait("RELOADING=1");
    listener.wait("READY=1");
    node.wait_output("state file reloaded", PATIENCE);
    listener.wait("WATCHDOG=1");

    node.signal(Signal::TERM);
    let stopping = listener.wait("STOPPING=1");
    assert_eq!(stopping, "STOPPING=1\nEXTEND_TIMEOUT_USEC=11000000\n");
    assert_eq!(node.wait_end(PATIENCE).code(), Some(0), "{}", node.output());
}
