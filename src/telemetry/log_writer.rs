//! The one thread that writes log lines: takes them from bounded queues, formats access records,
//! writes whole batches.
//!
//! Nobody who logs ever waits: a full queue drops the line, and the drop is counted. While lines
//! flow the thread looks at the queues every few milliseconds, so a shard pays no system call for
//! a line; only the first line after a quiet time wakes it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use super::access_log::{AccessLevel, Record};
use super::line::{Level, LineFormat};

/// Lines of the control plane that may wait; as many as one shard's.
const CONTROL_LINES_MAX: usize = crate::config::limits::ACCESS_LOG_LINES_MAX;

/// Lines of one queue that are written before another queue has its turn.
const BATCH_LINES: usize = 64;

/// Pause between two looks at the queues while lines flow: the delay of a line.
const FLOWING_PAUSE: Duration = Duration::from_millis(5);

/// Looks without a line after which the thread sleeps until it is woken.
const QUIET_LOOKS: u32 = 40;

/// Longest sleep: bounds the harm of a wake that is lost.
const SLEEP_MAX: Duration = Duration::from_millis(500);

/// Pause when the descriptor is non-blocking and takes nothing now.
const BLOCKED_PAUSE: Duration = Duration::from_millis(2);

/// Error lines kept for the status page.
const RECENT_ERRORS_MAX: usize = 20;

/// Where lines go and how they look.
pub struct WriterOptions {
    /// Takes the bytes, usually standard output.
    pub out: Box<dyn Write + Send>,
    /// Shape of a line.
    pub format: LineFormat,
    /// Level of the target `access` at start.
    pub access_level: Level,
}

impl std::fmt::Debug for WriterOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriterOptions")
            .field("format", &self.format)
            .field("access_level", &self.access_level)
            .finish_non_exhaustive()
    }
}

/// A formatted line of the control plane.
#[derive(Debug)]
struct ControlLine {
    text: String,
    level: Level,
}

#[derive(Debug)]
struct Shared {
    asleep: AtomicBool,
    stopping: AtomicBool,
    control_dropped: AtomicU64,
    write_failures: AtomicU64,
    #[expect(
        clippy::disallowed_types,
        reason = "taken by the writer and the admin server only, for an error line each"
    )]
    recent_errors: std::sync::Mutex<VecDeque<String>>,
}

/// Hands lines to the writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogSink {
    shared: Arc<Shared>,
    thread: Thread,
    lines: SyncSender<ControlLine>,
    queues: Sender<Receiver<Record>>,
    access_level: AccessLevel,
    format: LineFormat,
}

impl LogSink {
    /// Queues a formatted line; dropped and counted when the queue is full.
    pub fn line(&self, text: String, level: Level) {
        if self.lines.try_send(ControlLine { text, level }).is_ok() {
            self.shared.wake(&self.thread);
        } else {
            self.shared.control_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Shape of the lines the sink expects.
    #[must_use]
    pub const fn format(&self) -> LineFormat {
        self.format
    }

    /// The level shards read before they build a record.
    #[must_use]
    pub const fn access_level(&self) -> &AccessLevel {
        &self.access_level
    }

    /// Control-plane lines dropped so far.
    #[must_use]
    pub fn control_lines_dropped(&self) -> u64 {
        self.shared.control_dropped.load(Ordering::Relaxed)
    }

    /// Batches the output refused so far.
    #[must_use]
    pub fn write_failures(&self) -> u64 {
        self.shared.write_failures.load(Ordering::Relaxed)
    }

    /// The latest error lines, oldest first.
    #[must_use]
    pub fn recent_errors(&self) -> Vec<String> {
        let errors = self.shared.recent_errors.lock();
        let errors = errors.unwrap_or_else(std::sync::PoisonError::into_inner);
        errors.iter().cloned().collect()
    }

    /// A queue for the access records of one shard.
    pub(super) fn shard_queue(&self, lines_max: usize) -> RecordSender {
        let (sender, receiver) = sync_channel(lines_max);
        // Without a writer the process is ending, and records are dropped and counted.
        drop(self.queues.send(receiver));
        RecordSender {
            sender,
            shared: Arc::clone(&self.shared),
            thread: self.thread.clone(),
        }
    }
}

/// A shard's end of its record queue.
#[derive(Debug)]
pub(super) struct RecordSender {
    sender: SyncSender<Record>,
    shared: Arc<Shared>,
    thread: Thread,
}

impl RecordSender {
    /// Queues a record without waiting. False: the queue is full and the record is lost.
    pub(super) fn send(&self, record: Record) -> bool {
        let sent = self.sender.try_send(record).is_ok();
        if sent {
            self.shared.wake(&self.thread);
        }
        sent
    }
}

impl Shared {
    fn wake(&self, thread: &Thread) {
        // Pairs with the fence in `Writer::sleep`: either we see the flag, or it sees our line.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            thread.unpark();
        }
    }
}

/// Owner of the writer's thread.
#[derive(Debug)]
pub struct LogWriter {
    sink: LogSink,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl LogWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(options: WriterOptions) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            asleep: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            control_dropped: AtomicU64::new(0),
            write_failures: AtomicU64::new(0),
            recent_errors: Default::default(),
        });
        let (lines, control) = sync_channel(CONTROL_LINES_MAX);
        let (queues, new_queues) = channel();
        let (finished, done) = channel();
        let mut writer = Writer {
            out: options.out,
            format: options.format,
            shared: Arc::clone(&shared),
            control,
            new_queues,
            queues: Vec::new(),
            batch: String::new(),
        };
        let thread = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || {
                writer.run();
                // Nobody waits any more when the stop timed out.
                let _ = finished.send(());
            })?;
        let sink = LogSink {
            shared,
            thread: thread.thread().clone(),
            lines,
            queues,
            access_level: AccessLevel::new(options.access_level),
            format: options.format,
        };
        Ok(Self { sink, done, thread })
    }

    /// Where lines are handed in.
    #[must_use]
    pub fn sink(&self) -> LogSink {
        self.sink.clone()
    }

    /// Writes what is queued and ends the thread. False: `timeout` passed first, because the output
    /// takes nothing; the rest is lost.
    #[must_use]
    pub fn stop(self, timeout: Duration) -> bool {
        self.sink.shared.stopping.store(true, Ordering::SeqCst);
        self.sink.thread.unpark();
        match self.done.recv_timeout(timeout) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => self.thread.join().is_ok(),
            Err(RecvTimeoutError::Timeout) => false,
        }
    }
}

struct Writer {
    out: Box<dyn Write + Send>,
    format: LineFormat,
    shared: Arc<Shared>,
    control: Receiver<ControlLine>,
    new_queues: Receiver<Receiver<Record>>,
    queues: Vec<Receiver<Record>>,
    batch: String,
}

impl Writer {
    fn run(&mut self) {
        let mut quiet = 0;
        loop {
            // Read before the queues: what was queued before the stop is still written.
            let stopping = self.shared.stopping.load(Ordering::SeqCst);
            if self.write_round() {
                quiet = 0;
                continue;
            }
            if stopping {
                return;
            }
            quiet += 1;
            if quiet < QUIET_LOOKS {
                thread::park_timeout(FLOWING_PAUSE);
            } else {
                self.sleep();
            }
        }
    }

    /// Sleeps until somebody queues a line, unless one is there already.
    fn sleep(&mut self) {
        self.shared.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !self.write_round() && !self.shared.stopping.load(Ordering::SeqCst) {
            thread::park_timeout(SLEEP_MAX);
        }
        self.shared.asleep.store(false, Ordering::Relaxed);
    }

    /// One batch from each queue. False: all were empty.
    fn write_round(&mut self) -> bool {
        self.queues.extend(self.new_queues.try_iter());
        for line in self.control.try_iter().take(BATCH_LINES) {
            if line.level == Level::Error {
                self.shared.remember(&line.text);
            }
            self.batch.push_str(&line.text);
        }
        self.flush();
        let mut wrote = !self.batch.is_empty();
        self.batch.clear();
        for queue in 0..self.queues.len() {
            for record in self.queues[queue].try_iter().take(BATCH_LINES) {
                record.push(&mut self.batch, self.format);
            }
            self.flush();
            wrote |= !self.batch.is_empty();
            self.batch.clear();
        }
        wrote
    }

    /// Writes the batch, however small the pieces the output takes.
    fn flush(&mut self) {
        let mut rest = self.batch.as_bytes();
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => break,
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::park_timeout(BLOCKED_PAUSE);
                }
                Err(_) => break,
            }
        }
        let written = rest.is_empty() && self.out.flush().is_ok();
        if !written {
            // Nobody reads any more (EPIPE) or the disk is full: there is no place left to say so.
            self.shared.write_failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn remember(&self, line: &str) {
        let errors = self.recent_errors.lock();
        let mut errors = errors.unwrap_or_else(std::sync::PoisonError::into_inner);
        if errors.len() == RECENT_ERRORS_MAX {
            errors.pop_front();
        }
        errors.push_back(line.trim_end().to_owned());
    }
}

#[cfg(test)]
mod tests;
