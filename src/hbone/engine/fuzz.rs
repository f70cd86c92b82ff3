//! An engine fed by a script: frames of every kind, right and wrong, cut anywhere, between orders of
//! its streams. After each step its books must balance, and what it holds must be bounded.

use std::future::{pending, ready};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::connection::{Connection, Fault};
use super::frame;
use super::parked::{ParkedBudget, Received};
use super::state::Head;
use crate::hbone::guard::{Guard, Role};
use crate::hbone::settings::Settings;
use crate::hbone::stream::StreamError;

/// A script read from its front; an exhausted one gives zeros.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, count: usize) -> &[u8] {
        let (front, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        front
    }
}

/// Small enough that a script reaches the limits.
pub(super) fn settings(parked_bytes_max: usize) -> Settings {
    #[expect(clippy::disallowed_methods, reason = "the only way to make an Instant")]
    let now = Instant::now();
    let mut settings = Settings::new(
        Rc::new(|_| Box::pin(pending())),
        Rc::new(|| Box::pin(ready(()))),
        Rc::new(move || now),
        Rc::new(|_| {}),
    );
    settings.stream_window = 100_000;
    settings.connection_window = 300_000;
    settings.frame_size = 20_000;
    settings.max_streams = 5;
    settings.parked = ParkedBudget::new(parked_bytes_max);
    settings
}

/// A new engine, its first flight taken.
pub(super) fn connection(role: Role, settings: Settings) -> Connection {
    let settings = Rc::new(settings);
    let guard = Rc::new(Guard::new(role, &settings));
    let mut connection = Connection::new(role, &settings, &guard);
    connection.greet();
    connection
}

/// Plays a script against a server or a client.
pub(crate) fn run(script: &[u8]) {
    let mut script = Script(script);
    let role = if script.byte().is_multiple_of(2) {
        Role::Server
    } else {
        Role::Client
    };
    let mut connection = connection(role, settings(150_000));
    if role == Role::Server {
        let started = connection.receive(Received::lent(frame::PREFACE));
        assert_eq!(started, Ok(()), "the preface is right");
    }
    let mut next = 1;
    while !script.0.is_empty() {
        let outcome = step(&mut connection, &mut script, &mut next);
        check(&connection);
        if outcome.is_err() || connection.guard.verdict().is_some() {
            break;
        }
    }
    connection.fail(&StreamError::Connection("over".into()));
    check(&connection);
    for id in connection.streams.keys().copied().collect::<Vec<_>>() {
        connection.let_go(id);
    }
    assert!(
        connection.streams.is_empty(),
        "a stream outlives its handles"
    );
    let parked = connection.settings.parked.parked();
    assert_eq!(parked, 0, "bytes are counted that nobody holds");
}

fn step(connection: &mut Connection, script: &mut Script<'_>, next: &mut u32) -> Result<(), Fault> {
    let mut wire = Vec::new();
    match script.byte() % 10 {
        0 => {
            let size = usize::from(script.byte());
            wire.extend_from_slice(script.bytes(size));
        }
        1 | 2 => {
            let (kind, flags, stream) = (script.byte() % 11, script.byte(), script.byte() % 16);
            let size = usize::from(script.byte());
            let payload = script.bytes(size);
            frame::write(&mut wire, kind, flags, stream.into(), payload);
        }
        3 => {
            let block: &[u8] = if connection.role == Role::Server {
                b"\x02\x07CONNECT\x01\x0410:1"
            } else {
                b"\x88"
            };
            let flags = frame::END_HEADERS | (script.byte() & frame::END_STREAM);
            frame::write(&mut wire, frame::HEADERS, flags, *next, block);
            *next += 2;
        }
        4 | 5 => {
            let (stream, end) = (script.byte() % 16, script.byte() & frame::END_STREAM);
            let size = (usize::from(script.byte()) << (script.byte() % 8)).min(20_000);
            let payload = vec![script.byte(); size];
            frame::write(&mut wire, frame::DATA, end, stream.into(), &payload);
        }
        6 => {
            let (id, by) = (script.byte() % 16, u32::from(script.byte()) << 8);
            frame::write_window_update(&mut wire, id.into(), by);
        }
        7 => send_some(connection, script),
        _ => order(connection, script),
    }
    let cut = 1 + usize::from(script.byte()) * 64;
    for piece in wire.chunks(cut) {
        if piece.len().is_multiple_of(2) {
            connection.receive(Received::lent(piece))?;
        } else {
            let owner = Bytes::copy_from_slice(piece);
            connection.receive(Received::shared(&owner))?;
        }
    }
    Ok(())
}

/// The transport takes some of what is to be sent.
fn send_some(connection: &mut Connection, script: &mut Script<'_>) {
    connection.watch_budget();
    if connection.batch.is_empty() {
        connection.fill();
    }
    let mut slices = [std::io::IoSlice::new(&[]); super::batch::SLICES_MAX];
    let count = connection.batch.slices(&mut slices);
    let there: usize = slices[..count].iter().map(|slice| slice.len()).sum();
    let taken = there.min(1 + usize::from(script.byte()) * 256);
    connection.sent(taken);
}

/// A handle asks for something.
fn order(connection: &mut Connection, script: &mut Script<'_>) {
    let cx = Context::from_waker(Waker::noop());
    let id = u32::from(script.byte() % 16);
    let held = connection.streams.get(&id).is_some_and(|stream| {
        stream.held && !stream.waits_for_accept && !matches!(stream.head, Head::Unanswered)
    });
    let size = usize::from(script.byte()) * 16;
    match script.byte() % 11 {
        0 if connection.role == Role::Client => {
            let _ = connection.open(b"\x02\x07CONNECT".to_vec());
        }
        1 => {
            if let Some((id, _)) = connection.next_request() {
                match size % 3 {
                    0 => connection.refuse_request(id, 503),
                    1 => {
                        connection.stop_sending(id);
                        connection.let_go(id);
                    }
                    _ => {
                        let _ = connection.accept_request(id, None);
                    }
                }
            }
        }
        2 if held => {
            let _ = connection.poll_answer(id, &cx);
        }
        3 | 4 if held => {
            if let std::task::Poll::Ready(Ok(granted)) =
                connection.poll_capacity(id, &cx, size.max(1))
            {
                let _ = connection.send(id, Bytes::from(vec![7; granted.min(size)]));
            }
        }
        5 if held => connection.release(id),
        6 if held => {
            let _ = connection.finish(id);
        }
        7 if held => {
            if let std::task::Poll::Ready(Ok(Some(data))) = connection.poll_data(id, &cx) {
                let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
                connection.return_credit(id, bytes);
            }
        }
        8 if held => connection.reset(id, 8, &StreamError::Closed),
        9 if held => {
            connection.stop_reading(id, size.is_multiple_of(2));
            connection.stop_sending(id);
            connection.let_go(id);
        }
        10 => connection.start_drain(),
        _ => {
            connection.finish_drain();
            let _ = connection.poll_reset(id, &cx);
        }
    }
}

/// The books of the engine.
fn check(connection: &Connection) {
    let streams = connection.streams.values();
    let counted = streams.clone().filter(|stream| stream.counted).count();
    assert_eq!(counted, connection.active, "streams are miscounted");
    let held: usize = streams
        .clone()
        .map(|stream| stream.send.reserved + stream.send.queued)
        .sum();
    assert_eq!(i64::try_from(held), Ok(connection.held), "credit is lost");
    let parked: usize = streams
        .clone()
        .map(|stream| stream.recv.parked.bytes())
        .sum();
    assert_eq!(parked, connection.settings.parked.parked());
    for stream in streams {
        let queued: usize = stream.send.queue.iter().map(Bytes::len).sum();
        assert_eq!(queued, stream.send.queued, "queued bytes are miscounted");
        assert!(queued <= connection.settings.send_buffer);
        assert!(stream.recv.parked.bytes() <= connection.settings.stream_window as usize);
    }
    // Each received frame is answered by a few bytes, and the budget of control frames is 1,000.
    assert!(connection.control.len() < 64 * 1024, "answers pile up");
    assert!(connection.input.held_bytes() <= 512 * 1024);
}
