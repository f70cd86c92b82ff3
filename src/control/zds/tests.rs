//! The driver against an agent of the test's own, over a real socket.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use corelane_harness::agent::{self, Session as AgentSession, Who};

use super::session::Uid;
use super::*;
use crate::model::workload::WorkloadInfo;

const WHO: Who<'_> = Who {
    name: "web",
    namespace: "shop",
    account: "front",
};

/// Starts whatever it is told, unless the ports are taken; says what it did.
struct Fake {
    taken: Arc<AtomicBool>,
    done: Sender<String>,
}

impl Host for Fake {
    type Namespace = Namespace;

    fn start(
        &mut self,
        uid: &Uid,
        info: &Arc<WorkloadInfo>,
        _namespace: &Arc<Namespace>,
    ) -> Result<(), String> {
        if self.taken.load(Ordering::SeqCst) {
            return Err("port taken".into());
        }
        let _ = self.done.send(format!("+{uid} {info}"));
        Ok(())
    }

    fn stop(&mut self, uid: &Uid) {
        let _ = self.done.send(format!("-{uid}"));
    }

    async fn settled(&mut self) {}
}

/// A node with an agent that listens, or will.
struct Rig {
    dir: tempfile::TempDir,
    taken: Arc<AtomicBool>,
    done: Receiver<String>,
    readiness: Readiness,
    view: View,
    stop: watch::Sender<bool>,
    node: Option<JoinHandle<Result<(), ProtocolError>>>,
}

impl Rig {
    /// `paused`: waits of the node take no time.
    fn start(paused: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let taken = Arc::new(AtomicBool::new(false));
        let (done, told) = channel();
        let readiness = Readiness::new(Instant::now());
        let view = View::default();
        let (stop, stopped) = watch::channel(false);
        let options = Options {
            socket: dir.path().join("agent.sock"),
            home: netns::Home::of_this_thread().unwrap(),
            stop: stopped,
            readiness: readiness.clone(),
            view: view.clone(),
        };
        let host = Fake {
            taken: Arc::clone(&taken),
            done,
        };
        let node = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(paused);
            runtime.build().unwrap().block_on(run(options, host))
        });
        Self {
            dir,
            taken,
            done: told,
            readiness,
            view,
            stop,
            node: Some(node),
        }
    }

    fn listen(&self) -> agent::Agent {
        agent::Agent::listen(&self.dir.path().join("agent.sock"))
    }

    fn next(&self) -> String {
        let patience = Duration::from_secs(10);
        self.done.recv_timeout(patience).expect("something done")
    }

    fn is_ready(&self) -> bool {
        self.readiness.pending().is_empty()
    }

    fn wait_ready(&self, ready: bool) {
        let limit = Duration::from_secs(10);
        corelane_harness::clock::wait_for("readiness", limit, || {
            (self.is_ready() == ready).then_some(())
        });
    }

    fn stop(mut self) -> Result<(), ProtocolError> {
        let _ = self.stop.send(true);
        self.node.take().unwrap().join().unwrap()
    }
}

fn file(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn null() -> OwnedFd {
    file(Path::new("/dev/null"))
}

#[test]
fn a_node_finds_its_agent_late_and_is_ready_with_the_snapshot() {
    let rig = Rig::start(true);
    rig.wait_ready(false);
    assert_eq!(rig.readiness.pending(), [TASK]);
    let agent = rig.listen();
    let session = agent.accept();
    session.add("u1", WHO, null().as_fd()).unwrap();
    assert_eq!(rig.next(), "+u1 front.shop (web)");
    assert!(!rig.is_ready(), "no snapshot yet");
    session.snapshot().unwrap();
    assert!(rig.is_ready());
    assert_eq!(rig.view.dump()["u1"]["state"], "Up");
    session.delete("u1").unwrap();
    assert_eq!(rig.next(), "-u1");
    assert!(rig.is_ready());
    let readiness = rig.readiness.clone();
    rig.stop().unwrap();
    assert_eq!(
        readiness.pending(),
        [TASK],
        "a node that drains is not ready"
    );
}

#[test]
fn a_workload_that_cannot_start_is_refused_and_tried_again_until_it_can() {
    let rig = Rig::start(true);
    let agent = rig.listen();
    let session = agent.accept();
    rig.taken.store(true, Ordering::SeqCst);
    let refused = session.add("u1", WHO, null().as_fd());
    assert_eq!(refused.unwrap_err(), "failure to start proxy : port taken");
    session.snapshot().unwrap();
    assert!(!rig.is_ready());
    assert_eq!(rig.view.dump()["u1"]["state"], "Pending");
    rig.taken.store(false, Ordering::SeqCst);
    assert_eq!(rig.next(), "+u1 front.shop (web)");
    rig.wait_ready(true);
    assert_eq!(rig.view.dump()["u1"]["state"], "Up");
    session.keep("u1").unwrap_err();
}

#[test]
fn a_lost_connection_makes_the_node_unready_and_is_renewed() {
    let rig = Rig::start(false);
    let agent = rig.listen();
    let session = agent.accept();
    session.add("u1", WHO, null().as_fd()).unwrap();
    session.add("u2", WHO, null().as_fd()).unwrap();
    session.snapshot().unwrap();
    assert!(rig.is_ready());
    drop(session);
    let session = agent.accept();
    assert!(!rig.is_ready());
    session.keep("u2").unwrap();
    session.snapshot().unwrap();
    assert!(rig.is_ready());
    let done: Vec<String> = std::iter::repeat_with(|| rig.next()).take(3).collect();
    assert_eq!(
        done,
        ["+u1 front.shop (web)", "+u2 front.shop (web)", "-u1"]
    );
}

#[test]
fn an_agent_that_closes_at_once_is_asked_again_after_a_pause() {
    let rig = Rig::start(true);
    let agent = rig.listen();
    for _ in 0..5 {
        drop(agent.accept_silently());
        assert!(!rig.is_ready());
    }
    let session = agent.accept();
    session.snapshot().unwrap();
    assert!(rig.is_ready());
}

#[test]
fn what_is_no_request_closes_the_connection_and_keeps_the_workloads() {
    let rig = Rig::start(false);
    let agent = rig.listen();
    let mut session = agent.accept();
    session.add("u1", WHO, null().as_fd()).unwrap();
    assert_eq!(rig.next(), "+u1 front.shop (web)");
    let (one, add) = (null(), agent::add("u2", Some(WHO)));
    let fd = one.as_fd();
    let mut broken = |bytes: &[u8], descriptors: &[_], why: &str| {
        session.send(bytes, descriptors);
        let error = session.acknowledged().unwrap_err();
        assert!(error.starts_with("failure to read message : "), "{error}");
        assert!(error.contains(why), "{error}");
        session.wait_closed();
        session = agent.accept();
    };
    broken(&[0xff], &[], "decode");
    broken(&add, &[], "No control message");
    broken(&add, &[fd, fd], "descriptors");
    broken(&add, &[fd; 8], "truncated");
    broken(&[0x1a, 0x00], &[fd], "Unexpected control message");
    broken(
        &[vec![0x0a, 0x7f], vec![0; 2_000]].concat(),
        &[],
        "truncated",
    );
    session.keep("u1").unwrap();
    session.snapshot().unwrap();
    assert!(rig.is_ready());
    assert!(rig.done.try_recv().is_err(), "nothing was stopped");
}

#[test]
fn an_agent_that_breaks_the_protocol_ends_the_node() {
    let end = |talk: fn(&AgentSession)| {
        let mut rig = Rig::start(false);
        let agent = rig.listen();
        let session = agent.accept();
        talk(&session);
        let error = session.acknowledged().unwrap_err();
        assert!(
            error.starts_with("failure to process message : "),
            "{error}"
        );
        rig.node.take().unwrap().join().unwrap().unwrap_err();
    };
    end(|session| session.send(&agent::add("u1", None), &[null().as_fd()]));
    end(|session| {
        session.snapshot().unwrap();
        session.send(&[0x1a, 0x00], &[]);
    });
    end(|session| {
        session.snapshot().unwrap();
        session.send(&[0x2a, 0x04, 0x0a, 0x02, b'u', b'1'], &[]);
    });
}

#[test]
fn waits_after_barren_connections_double_and_stay_below_the_longest() {
    for (was_ready, failures, random, millis) in [
        (false, 0, 0.5, 500),
        (false, 1, 0.5, 1_000),
        (false, 0, 0.0, 400),
        (false, 0, 1.0, 600),
        (true, 0, 0.5, 5),
        (true, 3, 0.5, 40),
        (true, 400, 0.5, 15_000),
    ] {
        let wait = barren_wait(was_ready, failures, random);
        let off = wait.abs_diff(Duration::from_millis(millis));
        assert!(off < Duration::from_millis(1), "{failures}: {wait:?}");
    }
}
