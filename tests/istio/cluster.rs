//! Istio's control plane as a process, and what it is told.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use corelane_harness::requirements;
use tempfile::TempDir;

/// What its certificate calls it.
const NAME: &str = "istiod.istio-system.svc";

/// The control plane; it ends with this value.
pub(crate) struct Cluster {
    program: PathBuf,
    process: Child,
    lines: BufReader<ChildStdout>,
    xds: String,
    authority: String,
    dir: TempDir,
}

impl Cluster {
    /// Starts it, empty. `None`: it is not there, and the test is to be skipped.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let program = requirements::istio(test)?;
        let dir = tempfile::tempdir().unwrap();
        let log = fs::File::create(dir.path().join("istio.log")).unwrap();
        let mut process = Command::new(&program)
            .arg(dir.path().join("root.pem"))
            .env("PILOT_ENABLE_AMBIENT", "true")
            // It ends TLS in front of gRPC, which therefore takes requests for plain text.
            .env("XDS_AUTH_PLAINTEXT", "true")
            .env("CA_TRUSTED_NODE_ACCOUNTS", "istio-system/ztunnel")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        let mut cluster = Self {
            program,
            process,
            lines,
            xds: String::new(),
            authority: String::new(),
            dir,
        };
        cluster.xds = format!("https://{}", cluster.expect("xds "));
        cluster.authority = format!("https://{}", cluster.expect("ca "));
        cluster.expect("ready");
        Some(cluster)
    }

    /// For files of the test.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How a node reaches and believes it.
    pub(crate) fn environment(&self) -> [(&'static str, &str); 7] {
        [
            ("CLUSTER_ID", "Kubernetes"),
            ("XDS_ADDRESS", &self.xds),
            ("CA_ADDRESS", &self.authority),
            ("XDS_ROOT_CA", "root.pem"),
            ("CA_ROOT_CA", "root.pem"),
            ("ALT_XDS_HOSTNAME", NAME),
            ("ALT_CA_HOSTNAME", NAME),
        ]
    }

    /// The rest of the next line, which must begin so.
    fn expect(&mut self, start: &str) -> String {
        loop {
            let mut line = String::new();
            let length = self.lines.read_line(&mut line).unwrap();
            assert_ne!(length, 0, "Istio ended: {}", self.log());
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("istio.log")).unwrap_or_default()
    }

    /// Makes or changes objects.
    pub(crate) fn apply(&mut self, objects: &str) {
        self.order("apply", objects);
    }

    /// Removes objects.
    pub(crate) fn delete(&mut self, objects: &str) {
        self.order("delete", objects);
    }

    /// What Istio's command line prints of the dump of a node.
    pub(crate) fn read(&self, dump: &str) -> String {
        let mut process = Command::new(&self.program)
            .arg("read")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It reads all before it writes, and closes its input with this handle.
        let mut input = process.stdin.take().unwrap();
        input.write_all(dump.as_bytes()).unwrap();
        drop(input);
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn order(&mut self, verb: &str, objects: &str) {
        let file = self.dir.path().join("objects.yaml");
        fs::write(&file, objects).unwrap();
        let mut orders = self.process.stdin.as_ref().unwrap();
        writeln!(orders, "{verb} {}", file.display()).unwrap();
        self.expect("done");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = lines.len().saturating_sub(100);
            eprintln!("-- Istio:\n{}", lines[last..].join("\n"));
        }
    }
}
