//! The rules as tables: requests in, answers, order of starts and stops, and what is left, out.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;

/// A namespace by number.
#[derive(Debug)]
struct Room(u64);

impl Identified for Room {
    fn id(&self) -> NamespaceId {
        NamespaceId::invented(self.0)
    }
}

/// Writes down what it is told; namespaces whose ports are taken refuse.
#[derive(Clone, Debug, Default)]
struct Recorder {
    taken: Rc<RefCell<BTreeSet<NamespaceId>>>,
    done: Rc<RefCell<Vec<String>>>,
}

impl Recorder {
    fn take(&self, room: u64) {
        self.taken.borrow_mut().insert(NamespaceId::invented(room));
    }

    fn free(&self, room: u64) {
        self.taken.borrow_mut().remove(&NamespaceId::invented(room));
    }

    fn done(&self) -> String {
        std::mem::take(&mut *self.done.borrow_mut()).join(" ")
    }
}

impl Host for Recorder {
    type Namespace = Room;

    fn start(
        &mut self,
        uid: &Uid,
        info: &Arc<WorkloadInfo>,
        namespace: &Arc<Room>,
    ) -> Result<(), String> {
        if self.taken.borrow().contains(&namespace.id()) {
            return Err("port taken".into());
        }
        let room = namespace.0;
        let started = format!("+{uid}@{room}:{}", info.name);
        self.done.borrow_mut().push(started);
        Ok(())
    }

    fn stop(&mut self, uid: &Uid) {
        self.done.borrow_mut().push(format!("-{uid}"));
    }

    async fn settled(&mut self) {}
}

fn info() -> Arc<WorkloadInfo> {
    Arc::new(WorkloadInfo {
        name: "n".into(),
        namespace: "ns".into(),
        service_account: "sa".into(),
    })
}

fn add(uid: &str, room: u64) -> Request<Room> {
    Request::Add {
        uid: uid.into(),
        info: Some(info()),
        namespace: Room(room),
    }
}

fn keep(uid: &str) -> Request<Room> {
    Request::Keep(uid.into())
}

fn delete(uid: &str) -> Request<Room> {
    Request::Delete(uid.into())
}

const SNAPSHOT: Request<Room> = Request::SnapshotSent;

/// One step of a conversation, with a short word for what comes of it.
enum Step {
    Do(Request<Room>, &'static str),
    Reconnect,
    Retry,
    Take(u64),
    Free(u64),
}

use Step::{Do, Free, Reconnect, Retry, Take};

struct Case {
    name: &'static str,
    steps: Vec<Step>,
    /// Starts and stops, in order.
    done: &'static str,
    active: usize,
    pending: usize,
    started: u64,
    ready: bool,
}

fn check(case: Case) {
    let recorder = Recorder::default();
    let mut session = Session::new(recorder.clone());
    for step in case.steps {
        match step {
            Do(request, expected) => {
                let said = format!("{request:?}");
                let word = match session.handle(request) {
                    Ok(()) => "ok",
                    Err(Failure::Start(_)) => "not started",
                    Err(Failure::Protocol(_)) => "protocol",
                };
                assert_eq!(word, expected, "{}: {said}", case.name);
            }
            Reconnect => session.connected(),
            Retry => session.retry(),
            Take(room) => recorder.take(room),
            Free(room) => recorder.free(room),
        }
    }
    assert_eq!(recorder.done(), case.done, "{}", case.name);
    let counts = session.counts();
    let left = (counts.active, counts.pending, counts.started);
    assert_eq!(
        left,
        (case.active, case.pending, case.started),
        "{}",
        case.name
    );
    assert_eq!(session.is_ready(), case.ready, "{}: readiness", case.name);
    assert_eq!(session.has_pending(), case.pending > 0, "{}", case.name);
    let stops = case.done.matches('-').count() as u64;
    assert_eq!(counts.stopped, stops, "{}", case.name);
}

fn case(
    name: &'static str,
    steps: Vec<Step>,
    done: &'static str,
    (active, pending, started, ready): (usize, usize, u64, bool),
) -> Case {
    Case {
        name,
        steps,
        done,
        active,
        pending,
        started,
        ready,
    }
}

#[test]
fn workloads_come_and_go_as_the_agent_says() {
    let cases = [
        case("nothing said", vec![], "", (0, 0, 0, false)),
        case(
            "an empty node",
            vec![Do(SNAPSHOT, "ok")],
            "",
            (0, 0, 0, true),
        ),
        case(
            "added, no snapshot",
            vec![Do(add("a", 1), "ok")],
            "+a@1:n",
            (1, 0, 1, false),
        ),
        case(
            "added, snapshot, deleted",
            vec![
                Do(add("a", 1), "ok"),
                Do(SNAPSHOT, "ok"),
                Do(delete("a"), "ok"),
            ],
            "+a@1:n -a",
            (0, 0, 1, true),
        ),
        case(
            "the same twice",
            vec![
                Do(add("a", 1), "ok"),
                Do(add("a", 1), "ok"),
                Do(SNAPSHOT, "ok"),
            ],
            "+a@1:n",
            (1, 0, 1, true),
        ),
        case(
            "another namespace",
            vec![Do(add("a", 1), "ok"), Do(add("a", 2), "ok")],
            "+a@1:n -a +a@2:n",
            (1, 0, 2, false),
        ),
        case(
            "added, deleted, added",
            vec![
                Do(SNAPSHOT, "ok"),
                Do(add("a", 1), "ok"),
                Do(delete("a"), "ok"),
                Do(add("a", 1), "ok"),
            ],
            "+a@1:n -a +a@1:n",
            (1, 0, 2, true),
        ),
        case(
            "unknown uid deleted",
            vec![Do(SNAPSHOT, "ok"), Do(delete("a"), "ok")],
            "",
            (0, 0, 0, true),
        ),
        case(
            "deleted before the snapshot",
            vec![
                Do(add("a", 1), "ok"),
                Do(delete("a"), "ok"),
                Do(SNAPSHOT, "ok"),
            ],
            "+a@1:n -a",
            (0, 0, 1, true),
        ),
    ];
    cases.into_iter().for_each(check);
}

#[test]
fn failed_starts_are_kept_and_tried_again_until_they_work_or_are_forgotten() {
    let cases = [
        case(
            "freed, then tried again",
            vec![
                Take(1),
                Do(add("a", 1), "not started"),
                Do(SNAPSHOT, "ok"),
                Retry,
                Free(1),
                Retry,
            ],
            "+a@1:n",
            (1, 0, 1, true),
        ),
        case(
            "still taken",
            vec![
                Take(1),
                Do(add("a", 1), "not started"),
                Do(SNAPSHOT, "ok"),
                Retry,
            ],
            "",
            (0, 1, 0, false),
        ),
    ];
    cases.into_iter().for_each(check);
}

#[test]
fn a_failed_start_that_something_newer_made_pointless_is_forgotten() {
    let cases = [
        case(
            "a newer namespace worked",
            vec![
                Take(1),
                Do(SNAPSHOT, "ok"),
                Do(add("a", 1), "not started"),
                Do(add("a", 2), "ok"),
                Free(1),
                Retry,
            ],
            "+a@2:n",
            (1, 0, 1, true),
        ),
        case(
            "snapshot, failed, deleted",
            vec![
                Take(1),
                Do(SNAPSHOT, "ok"),
                Do(add("a", 1), "not started"),
                Do(delete("a"), "ok"),
                Free(1),
                Retry,
            ],
            "",
            (0, 0, 0, true),
        ),
        case(
            "failed, deleted, snapshot",
            vec![
                Take(1),
                Do(add("a", 1), "not started"),
                Do(delete("a"), "ok"),
                Do(SNAPSHOT, "ok"),
                Free(1),
                Retry,
            ],
            "",
            (0, 0, 0, true),
        ),
        case(
            "failed, connected anew",
            vec![
                Take(1),
                Do(add("a", 1), "not started"),
                Reconnect,
                Free(1),
                Retry,
                Do(SNAPSHOT, "ok"),
            ],
            "",
            (0, 0, 0, true),
        ),
        case(
            "moved into a namespace that is taken",
            vec![
                Take(2),
                Do(add("a", 1), "ok"),
                Do(SNAPSHOT, "ok"),
                Do(add("a", 2), "not started"),
            ],
            "+a@1:n -a",
            (0, 1, 1, false),
        ),
    ];
    cases.into_iter().for_each(check);
}

#[test]
fn a_new_connection_keeps_what_it_says_and_drops_the_rest_with_its_snapshot() {
    let cases = [
        case(
            "one of two left",
            vec![
                Do(add("a", 1), "ok"),
                Do(add("b", 2), "ok"),
                Do(SNAPSHOT, "ok"),
                Reconnect,
                Do(add("b", 3), "ok"),
                Do(SNAPSHOT, "ok"),
            ],
            "+a@1:n +b@2:n -b +b@3:n -a",
            (1, 0, 3, true),
        ),
        case(
            "running until the snapshot",
            vec![Do(add("a", 1), "ok"), Do(SNAPSHOT, "ok"), Reconnect],
            "+a@1:n",
            (1, 0, 1, false),
        ),
        case(
            "kept",
            vec![
                Do(add("a", 1), "ok"),
                Do(SNAPSHOT, "ok"),
                Reconnect,
                Do(keep("a"), "ok"),
                Do(SNAPSHOT, "ok"),
            ],
            "+a@1:n",
            (1, 0, 1, true),
        ),
        case(
            "kept and not known",
            vec![Do(keep("a"), "ok"), Do(SNAPSHOT, "ok")],
            "",
            (0, 0, 0, true),
        ),
    ];
    cases.into_iter().for_each(check);
}

#[test]
fn what_the_protocol_forbids_is_told_apart_from_what_failed() {
    let nobody = || Request::Add {
        uid: "a".into(),
        info: None,
        namespace: Room(1),
    };
    let cases = [
        case(
            "nobody",
            vec![Do(nobody(), "protocol")],
            "",
            (0, 0, 0, false),
        ),
        case(
            "kept too late",
            vec![Do(SNAPSHOT, "ok"), Do(keep("a"), "protocol")],
            "",
            (0, 0, 0, true),
        ),
        case(
            "two snapshots",
            vec![Do(SNAPSHOT, "ok"), Do(SNAPSHOT, "protocol")],
            "",
            (0, 0, 0, true),
        ),
    ];
    cases.into_iter().for_each(check);
}

#[test]
fn operators_see_who_waits_and_who_is_served() {
    let recorder = Recorder::default();
    let mut session = Session::new(recorder.clone());
    let view = super::super::view::View::default();
    let shown = |session: &Session<Recorder>| {
        view.publish(session.shown());
        view.dump()
    };
    let info = serde_json::json!({"name": "n", "namespace": "ns", "serviceAccount": "sa"});
    recorder.take(1);
    session.handle(SNAPSHOT).unwrap();
    session.handle(add("uid1", 1)).unwrap_err();
    let pending = serde_json::json!({"uid1": {"info": info, "state": "Pending"}});
    assert_eq!(shown(&session), pending);
    recorder.free(1);
    session.retry();
    let up = serde_json::json!({"uid1": {"info": info, "state": "Up"}});
    assert_eq!(shown(&session), up);
    session.handle(delete("uid1")).unwrap();
    assert_eq!(shown(&session), serde_json::json!({}));
}
