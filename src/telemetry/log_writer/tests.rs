//! Tests of the log writer's thread.

use std::io::Read;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;
use crate::telemetry::access_log::FlowRecord;
use crate::telemetry::testing::{outbound, writer};

/// Takes a few bytes at a time, sometimes none now.
struct Crumbs {
    size: usize,
    turn: usize,
    taken: Sender<u8>,
}

impl Write for Crumbs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.turn += 1;
        if self.turn.is_multiple_of(50) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.turn.is_multiple_of(33) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let taken = &bytes[..bytes.len().min(self.size)];
        for byte in taken {
            self.taken.send(*byte).unwrap();
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn record() -> Record {
    Record::Flow(Box::new(FlowRecord {
        time: std::time::SystemTime::UNIX_EPOCH,
        flow: outbound(),
        end: None,
    }))
}

#[test]
fn output_that_takes_crumbs_gets_every_line_intact() {
    for size in [1, 3, 7] {
        let (taken, bytes) = channel();
        let out = Box::new(Crumbs {
            size,
            turn: 0,
            taken,
        });
        let options = WriterOptions {
            out,
            format: LineFormat::Plain,
            access_level: Level::Info,
        };
        let writer = LogWriter::start(options).unwrap();
        let expected: String = (0..200).map(|n| format!("line number {n}\n")).collect();
        for n in 0..200 {
            writer
                .sink()
                .line(format!("line number {n}\n"), Level::Info);
        }
        assert!(writer.stop(Duration::from_secs(10)));
        let found = String::from_utf8(bytes.try_iter().collect()).unwrap();
        assert_eq!(found, expected, "{size} bytes at a time");
    }
}

#[test]
fn lines_of_shards_and_control_plane_all_arrive() {
    let (writer, lines) = writer(LineFormat::Plain, Level::Debug);
    let queues = [
        writer.sink().shard_queue(500),
        writer.sink().shard_queue(500),
    ];
    let shards = queues
        .map(|queue| thread::spawn(move || (0..500).filter(|_| queue.send(record())).count()));
    for _ in 0..500 {
        writer.sink().line("control\n".to_owned(), Level::Info);
    }
    let queued: usize = shards.map(|shard| shard.join().unwrap()).iter().sum();
    assert_eq!(queued, 1_000, "the queues are large enough");
    let lines = lines.all(writer);
    assert_eq!(lines.iter().filter(|line| *line == "control").count(), 500);
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("connection opened"))
            .count(),
        1_000
    );
}

#[test]
fn sleeping_writer_wakes_for_a_line() {
    let (sender, written) = channel();
    struct Tell(Sender<()>);
    impl Write for Tell {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let out = Box::new(Tell(sender));
    let options = WriterOptions {
        out,
        format: LineFormat::Plain,
        access_level: Level::Info,
    };
    let writer = LogWriter::start(options).unwrap();
    let sink = writer.sink();
    while !sink.shared.asleep.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    sink.line("wake up\n".to_owned(), Level::Info);
    written
        .recv_timeout(Duration::from_secs(10))
        .expect("the line is written");
    assert!(writer.stop(Duration::from_secs(10)));
}

#[test]
fn output_nobody_reads_costs_lines_but_no_time() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let options = WriterOptions {
        out: Box::new(pipe),
        format: LineFormat::Plain,
        access_level: Level::Debug,
    };
    let writer = LogWriter::start(options).unwrap();
    let queue = writer.sink().shard_queue(64);
    // Far more than a pipe (64 KiB) and the queue hold: a sender that waited would never end.
    let sent = (0..10_000).filter(|_| queue.send(record())).count();
    assert!(sent < 10_000, "something had to be dropped");
    for _ in 0..2 * CONTROL_LINES_MAX {
        writer
            .sink()
            .line("control plane\n".to_owned(), Level::Info);
    }
    assert!(writer.sink().control_lines_dropped() > 0);
    let sink = writer.sink();
    assert!(
        !writer.stop(Duration::from_millis(10)),
        "the writer cannot end"
    );
    // Somebody reads after all: what was queued comes out, whole.
    let reader = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    drop((queue, sink));
    let text = reader.join().unwrap();
    assert_eq!(
        text.lines()
            .filter(|line| line.contains("connection opened"))
            .count(),
        sent
    );
    assert!(
        text.lines()
            .all(|line| line.contains("connection opened") || line == "control plane")
    );
}

#[test]
fn output_that_is_gone_is_counted_and_nothing_waits() {
    let (reader, pipe) = io::pipe().unwrap();
    drop(reader);
    let options = WriterOptions {
        out: Box::new(pipe),
        format: LineFormat::Plain,
        access_level: Level::Info,
    };
    let writer = LogWriter::start(options).unwrap();
    let sink = writer.sink();
    sink.line("lost\n".to_owned(), Level::Info);
    assert!(writer.stop(Duration::from_secs(10)));
    assert_eq!(sink.write_failures(), 1);
}

#[test]
fn latest_error_lines_are_remembered() {
    let (writer, lines) = writer(LineFormat::Plain, Level::Info);
    let sink = writer.sink();
    for n in 0..30 {
        sink.line(format!("error {n}\n"), Level::Error);
        sink.line(format!("warning {n}\n"), Level::Warn);
    }
    assert_eq!(lines.all(writer).len(), 60);
    let errors = sink.recent_errors();
    assert_eq!(errors.len(), RECENT_ERRORS_MAX);
    assert_eq!(errors.first().unwrap(), "error 10");
    assert_eq!(errors.last().unwrap(), "error 29");
}
