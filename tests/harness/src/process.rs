//! A program started by a test: its output is kept and shown when the test fails, and it is killed
//! (by its own process id) when the value is dropped.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, pidfd_getfd, pidfd_open,
};

use crate::clock;

/// Output lines shown when a test fails.
const LINES_SHOWN: usize = 200;

/// A running (or ended) program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; both of its output streams go to one file in `dir`.
    ///
    /// # Panics
    /// If the program cannot be started.
    #[must_use]
    pub fn start(name: &str, mut command: Command, dir: &Path) -> Self {
        let output = dir.join(format!("{name}.log"));
        let file = File::create(&output).expect("output file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("start {name}: {e}"));
        Self {
            name: name.into(),
            child,
            output,
            ended: None,
        }
    }

    /// Process id.
    ///
    /// # Panics
    /// Never for a process the system gave us.
    #[must_use]
    pub fn pid(&self) -> Pid {
        let id = i32::try_from(self.child.id()).expect("process id");
        Pid::from_raw(id).expect("not zero")
    }

    /// Everything printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Waits until the output holds `text`.
    ///
    /// # Panics
    /// After `limit`.
    #[track_caller]
    pub fn wait_output(&self, text: &str, limit: Duration) {
        let what = format!("{text:?} in the output of {}", self.name);
        clock::wait_for(&what, limit, || self.output().contains(text).then_some(()));
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("signal");
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// If waiting fails.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("wait");
        }
        self.ended
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// After `limit`.
    #[track_caller]
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        clock::wait_for(&what, limit, || self.ended())
    }

    /// CPU time used so far, user and system.
    ///
    /// # Panics
    /// If the process is gone.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(path).expect("process statistics");
        // Fields after the parenthesised name start with the third one; see proc(5).
        let (_, rest) = stat.rsplit_once(')').expect("process name");
        let ticks: u64 = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|t| t.parse::<u64>().expect("ticks"))
            .sum();
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        Duration::from_millis(ticks * 1_000 / ticks_per_second)
    }

    /// Number of descriptors it has open.
    ///
    /// # Panics
    /// If the process is gone.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("descriptors");
        entries.count() as u64
    }

    /// Number of threads it has.
    ///
    /// # Panics
    /// If the process is gone.
    #[must_use]
    pub fn threads(&self) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("threads");
        entries.count()
    }

    /// Names of its threads, sorted.
    ///
    /// # Panics
    /// If the process is gone.
    #[must_use]
    pub fn thread_names(&self) -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("threads");
        let names =
            entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("comm")).ok());
        let mut names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
        names.sort();
        names
    }

    /// A size of its memory in bytes, by its name in /proc/PID/status: `VmRSS`, `VmHWM`.
    ///
    /// # Panics
    /// If the process is gone.
    #[must_use]
    pub fn memory(&self, name: &str) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status");
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .expect("the size");
        let kib = line.split_whitespace().nth(1).expect("a number");
        kib.parse::<u64>().expect("a number") * 1024
    }

    /// Second handles of its sockets, for looking at their options. Needs root.
    ///
    /// # Panics
    /// If the process is gone or the system refuses.
    #[must_use]
    pub fn sockets(&self) -> Vec<OwnedFd> {
        let process = pidfd_open(self.pid(), PidfdFlags::empty()).expect("a handle of the process");
        let entries = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("descriptors");
        let is_socket = |path: &Path| {
            fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let numbers = paths
            .filter(|path| is_socket(path))
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok());
        // One that was closed meanwhile is no socket any more.
        numbers
            .filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok())
            .collect()
    }

    /// Number of network namespaces it holds open.
    ///
    /// # Panics
    /// If the process is gone.
    #[must_use]
    pub fn namespaces(&self) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("descriptors");
        let own = fs::metadata("/proc/self/ns/net").expect("namespaces");
        let targets = entries.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok());
        targets.filter(|target| target.dev() == own.dev()).count()
    }

    /// Changes its soft limit of descriptors and returns the limit it had.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn limit_descriptors(&self, soft: u64) -> u64 {
        let pid = Some(self.pid());
        let hard = self.hard_descriptor_limit();
        let new = Rlimit {
            current: Some(soft),
            maximum: Some(hard),
        };
        let old = rustix::process::prlimit(pid, Resource::Nofile, new).expect("prlimit");
        old.current.unwrap_or(hard)
    }

    fn hard_descriptor_limit(&self) -> u64 {
        let limits =
            fs::read_to_string(format!("/proc/{}/limits", self.child.id())).expect("limits");
        let line = limits
            .lines()
            .find(|l| l.starts_with("Max open files"))
            .expect("open files");
        let hard = line.split_whitespace().nth(4).expect("hard limit");
        hard.parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            // Through the capturing macro: the test runner shows it with the failure.
            eprintln!("---- output of {} (last {} lines)", self.name, shown.len());
            for line in shown {
                eprintln!("{line}");
            }
        }
    }
}

/// Writes a file so that a reader sees the old or the new content, never half of one.
///
/// # Panics
/// If the file system refuses.
pub fn replace_file(path: &Path, content: &str) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let mut file = File::create(&aside).expect("temporary file");
    file.write_all(content.as_bytes()).expect("write");
    fs::rename(&aside, path).expect("rename");
}
