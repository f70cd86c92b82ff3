//! Bulk through a relay between two plain connections, copied and spliced: a node of one shard, a
//! forward, and a sink on loopback addresses.

#![expect(
    clippy::expect_used,
    reason = "a bench that cannot be set up has nothing to say"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use corelane_harness::clock::wait_for;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const BULK_BYTES: usize = 64 * 1024 * 1024;
const CHUNK_BYTES: usize = 256 * 1024;
const WAYS: [(&str, &str); 2] = [("copy", "off"), ("splice", "1048576")];
const START_WITHIN: Duration = Duration::from_secs(10);

const STATE: &str = "\
workloads:
- {uid: client, name: client, namespace: default, serviceAccount: client, workloadIps: [], services: {}}
";

/// A node with one forward; ended on drop.
struct Node(Child);

impl Node {
    /// Forwards from `at` to `to`.
    fn start(dir: &Path, at: &str, to: &str, pipe: &str) -> Self {
        fs::write(dir.join("state.yaml"), STATE).expect("a state file");
        let config = format!(
            "mode: node\nshards: {{count: 1, pin: false}}\nlocalState: state.yaml\nidentityDir: .\n\
             listeners: {{inbound: off, inboundPlaintext: off, outbound: off, admin: off, stats: off, \
             readiness: off}}\ntuning: {{pipeBytes: {pipe}}}\n\
             forwards: [{{listen: '{at}', to: '{to}', as: default/client}}]\n"
        );
        let file = dir.join("corelane.yaml");
        fs::write(&file, config).expect("a configuration");
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
        command.arg("proxy").arg("--config").arg(&file);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.expect("the node starts"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Reads whatever comes, one connection at a time, and answers its end with one byte.
fn sink() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address").to_string();
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
            let _left = stream.write_all(b"!");
        }
    });
    addr
}

/// Sends it all and waits until it has arrived.
fn bulk(at: &str, data: &[u8]) {
    let up = || TcpStream::connect(at).ok();
    let mut stream = wait_for("the node to listen", START_WITHIN, up);
    for _ in 0..BULK_BYTES / CHUNK_BYTES {
        stream.write_all(data).expect("sent");
    }
    stream.shutdown(std::net::Shutdown::Write).expect("ended");
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("arrived");
}

fn relay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("relay 64 MiB");
    group.throughput(Throughput::Bytes(BULK_BYTES as u64));
    group.sample_size(20);
    let to = sink();
    let data = vec![7; CHUNK_BYTES];
    for (index, (name, pipe)) in WAYS.into_iter().enumerate() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = format!("127.8.{}.1:9000", index + 1);
        let _node = Node::start(dir.path(), &at, &to, pipe);
        group.bench_function(name, |bencher| bencher.iter(|| bulk(&at, &data)));
    }
    group.finish();
}

criterion_group!(benches, relay);
criterion_main!(benches);
