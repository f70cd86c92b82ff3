//! The demo as a stranger runs it: the built program, no privileges, nothing left behind.

#[cfg(test)]
mod demo {
    use std::fs;
    use std::io::{BufRead, BufReader, Read};
    use std::path::Path;
    use std::process::{Child, Command, ExitStatus, Stdio};

    use serde_json::Value;

    /// A demo whose temporary files are in `folder`, alone.
    fn demo(folder: &Path, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_corelane"))
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn end(child: Child) -> (ExitStatus, String, String) {
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status, text(output.stdout), text(output.stderr))
    }

    fn leftovers(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    /// Whether a process with this id exists and is one of ours.
    fn runs(pid: u64) -> bool {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.windows(5).any(|w| w == b"proxy"))
    }

    fn pids(facts: &Value) -> Vec<u64> {
        let nodes = facts["nodes"].as_array().unwrap();
        nodes
            .iter()
            .map(|node| node["pid"].as_u64().unwrap())
            .collect()
    }

    #[test]
    fn the_demo_shows_one_allowed_and_one_refused_client_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (status, out, err) = end(demo(folder.path(), &["--json"]));
        assert!(status.success(), "{status}\n{out}\n{err}");
        let facts: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(facts["ok"], true);
        let (allowed, refused) = (&facts["allowed"], &facts["refused"]);
        assert_eq!(allowed["status"], 200);
        assert_eq!(allowed["tls"]["version"], "TLSv1.3");
        assert_eq!(allowed["tls"]["group"], "X25519MLKEM768");
        assert_eq!(
            allowed["source_identity"],
            "spiffe://cluster.local/ns/default/sa/web-client"
        );
        assert_eq!(
            refused["source_identity"],
            "spiffe://cluster.local/ns/default/sa/intruder"
        );
        assert_eq!(
            refused["destination_identity"],
            allowed["destination_identity"]
        );
        assert_eq!(refused["policy"], "default/no-intruders");
        assert_eq!(refused["reached_server"], 0);
        assert_eq!(facts["bytes"]["nodes_agree"], true);
        assert!(facts["bytes"]["received"].as_u64().unwrap() > 8 << 20);
        assert!(facts["seconds"].as_f64().unwrap() < 30.0);
        assert_eq!(pids(&facts).len(), 2);
        assert!(
            !pids(&facts).into_iter().any(runs),
            "a node is still running"
        );
        assert_eq!(leftovers(folder.path()), 0);
    }

    #[test]
    fn an_interrupted_demo_takes_its_nodes_and_files_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = demo(folder.path(), &["--keep", "--json"]);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        // The JSON object ends with the first closing brace in the first column.
        let mut text = String::new();
        while !text.ends_with("\n}\n") {
            assert_ne!(out.read_line(&mut text).unwrap(), 0, "ended early: {text}");
        }
        let facts: Value = serde_json::from_str(&text).unwrap();
        assert!(
            pids(&facts).into_iter().all(runs),
            "the nodes should still run"
        );
        assert_eq!(leftovers(folder.path()), 1);
        let status = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        let (status, _, err) = end(child);
        assert!(status.success(), "{status}\n{err}");
        assert!(
            !pids(&facts).into_iter().any(runs),
            "a node is still running"
        );
        assert_eq!(leftovers(folder.path()), 0);
    }

    #[test]
    fn a_demo_that_cannot_start_its_nodes_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("nowhere");
        let (status, out, err) = end(demo(&missing, &[]));
        assert_eq!(status.code(), Some(1), "{out}");
        assert!(err.contains("cannot make a temporary folder"), "{err}");
    }
}
