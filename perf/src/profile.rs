//! Where the tunnel processes spend their CPU time: one more round under `perf record`, which is not
//! measured, told by parts (network stack, copies, scheduling, ciphers, …) and by functions.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::peers::Running;
use crate::stop::Stop;
use crate::tool;

/// Samples a second of each CPU: odd, so that it does not beat with timers.
const FREQUENCY: &str = "1997";
/// Functions that are kept.
const FUNCTIONS_MAX: usize = 40;
/// How much longer than the work `perf record` may take to write what it saw.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shares of the CPU time of all tunnel processes of a peer, in one kind of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Name of the work.
    pub work: String,
    /// Peer and condition.
    pub peer: String,
    /// Parts, largest first; together 100 %.
    pub parts: Vec<Share>,
    /// The functions that took most themselves, largest first.
    pub functions: Vec<Share>,
}

/// A share of CPU time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Of what; a function has its program or `kernel` in front.
    pub name: String,
    /// Percent.
    pub percent: f64,
}

/// The `perf` program of the kernel's own tools.
#[derive(Clone, Debug)]
pub struct Profiler {
    program: PathBuf,
}

impl Profiler {
    /// Finds it.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn find() -> Result<Self> {
        let program = tool::find("perf").ok_or_else(|| {
            Error::Usage("--profile needs the program perf (Debian: linux-perf)".into())
        })?;
        Ok(Self { program })
    }

    /// Profiles the tunnel processes of a lab while `act` keeps them busy for `seconds`.
    ///
    /// # Errors
    /// Of `perf`, of `act`, or if the run is interrupted.
    pub fn watch<T>(
        &self,
        running: &Running,
        seconds: u64,
        stop: &Stop,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<Vec<Function>> {
        let file = running.lab.dir().join("profile.data");
        let pids: Vec<String> = running.pids().iter().map(u32::to_string).collect();
        let mut record = Command::new(&self.program);
        record.args(["record", "--quiet", "--freq", FREQUENCY, "--pid"]);
        record.arg(pids.join(",")).arg("--output").arg(&file);
        record.args(["--", "sleep", &seconds.to_string()]);
        let recorder = tool::start("perf-record", record, running.lab.dir());
        act()?;
        let limit = Duration::from_secs(seconds) + PATIENCE;
        tool::finish("perf record", recorder, limit, stop)?;
        let report = self.report(&file)?;
        std::fs::remove_file(&file).map_err(Error::io(file.display().to_string()))?;
        parse(&report)
    }

    fn report(&self, file: &Path) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["report", "--stdio", "--no-children", "--percent-limit", "0"]);
        command.args(["--sort", "dso,symbol", "--field-separator", SEPARATOR]);
        command.arg("--input").arg(file);
        let output = command.output().map_err(Error::io("perf report"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Failed {
            what: "perf report".into(),
            status: output.status.to_string(),
            output: tool::last_lines(&String::from_utf8_lossy(&output.stderr)),
        })
    }
}

/// Stands in no name of a function.
const SEPARATOR: &str = "\t";

/// A function and its share, in percent.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    kernel: bool,
    object: String,
    name: String,
    percent: f64,
}

/// Reads lines like `8.07%<TAB>corelane<TAB>[.] name`.
fn parse(report: &str) -> Result<Vec<Function>> {
    let mut functions = Vec::new();
    for line in report.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.split(SEPARATOR).map(str::trim);
        let fields = (fields.next(), fields.next(), fields.next());
        let (Some(percent), Some(object), Some(symbol)) = fields else {
            continue;
        };
        let unreadable = || Error::Unreadable {
            what: "perf report".into(),
            why: format!("{line:?}"),
        };
        let percent = percent.trim_end_matches('%').parse();
        let (kind, name) = symbol.split_once("] ").ok_or_else(unreadable)?;
        functions.push(Function {
            kernel: kind == "[k",
            object: object.into(),
            name: name.trim().into(),
            percent: percent.map_err(|_| unreadable())?,
        });
    }
    Ok(functions)
}

impl Profile {
    /// Sums functions up by parts and keeps the largest.
    #[must_use]
    pub fn new(work: &str, peer: String, functions: &[Function]) -> Self {
        let mut parts: Vec<Share> = Vec::new();
        for function in functions {
            let name = part(function);
            match parts.iter_mut().find(|part| part.name == name) {
                Some(part) => part.percent += function.percent,
                None => parts.push(Share {
                    name: name.into(),
                    percent: function.percent,
                }),
            }
        }
        parts.sort_by(|a, b| b.percent.total_cmp(&a.percent));
        let mut largest: Vec<&Function> = functions.iter().collect();
        largest.sort_by(|a, b| b.percent.total_cmp(&a.percent));
        largest.truncate(FUNCTIONS_MAX);
        let functions = largest.into_iter().map(|function| Share {
            name: if function.kernel {
                format!("kernel: {}", function.name)
            } else {
                format!("{}: {}", function.object, function.name)
            },
            percent: function.percent,
        });
        Self {
            work: work.into(),
            peer,
            parts,
            functions: functions.collect(),
        }
    }
}

/// Words in names of functions and the part they belong to; the first that fits counts.
const KERNEL: [(&str, &[&str]); 3] = [
    (
        "copies between user and kernel",
        &[
            "_copy_to_iter",
            "_copy_from_iter",
            "copy_user",
            "rep_movs",
            "copy_page",
        ],
    ),
    (
        "wake-ups, scheduling and interrupts",
        &[
            "finish_task_switch",
            "_raw_spin_unlock_irq",
            "schedule",
            "__switch_to",
            "try_to_wake_up",
            "enqueue_",
            "dequeue_",
            "pick_next",
            "update_curr",
            "update_load",
            "select_task",
            "ttwu_",
            "handle_softirqs",
            "sysvec_",
            "psi_",
            "hrtimer",
        ],
    ),
    ("io_uring and epoll", &["io_", "ep_", "epoll"]),
];
const USER: [(&str, &[&str]); 3] = [
    ("AES-GCM", &["aes_gcm", "aesni", "gcm_", "ghash", "aes_"]),
    (
        "keys and hashes of handshakes",
        &[
            "ecp_nistz",
            "p256",
            "P256",
            "25519",
            "mlkem",
            "mlk_",
            "ml_kem",
            "keccak",
            "Keccak",
            "sha3_",
            "sha512",
            "sha256",
            "SHA512",
            "SHA384",
            "SHA256",
            "HMAC",
            "HKDF",
            "hkdf",
            "ECDSA",
            "ecdsa",
            "EC_",
            "ec_",
            "bn_",
            "BN_",
            "bignum_",
            "mod_inverse",
            "mod_exp",
            "montx",
        ],
    ),
    (
        "memory: allocation and copies",
        &[
            "malloc",
            "calloc",
            "realloc",
            "rallocx",
            "sdallocx",
            "free@",
            "cfree",
            "tcmalloc",
            "rjem",
            "operator new",
            "operator delete",
            "memmove",
            "memcpy",
            "memset",
            "tc_",
        ],
    ),
];

/// Which part of the work a function does.
fn part(function: &Function) -> &'static str {
    let (table, rest): (&[(&'static str, &[&str])], _) = if function.kernel {
        (&KERNEL, "network stack and system calls")
    } else {
        (&USER, "the program itself")
    };
    let found = table
        .iter()
        .find(|(_, words)| words.iter().any(|word| function.name.contains(word)));
    found.map_or(rest, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "# To display the perf.data header info, please use --header\n\
        #\n  12.50%\tcorelane-0\t[.] aws_lc_0_47_0_aes_gcm_encrypt_avx512\n\
        \x20\x2010.00%\t[kernel.kallsyms]\t[k] _copy_to_iter\n\
        \x20\x207.50%\t[kernel.kallsyms]\t[k] tcp_sendmsg_locked\n\
        \x20\x205.00%\tlibc.so.6\t[.] __memmove_avx512_unaligned_erms\n\
        \x20\x202.50%\tcorelane-0\t[.] aws_lc_0_47_0_aes_gcm_decrypt_avx512\n\n";

    #[test]
    fn functions_are_summed_up_by_part() {
        let profile = Profile::new("bulk-up", "corelane".into(), &parse(REPORT).unwrap());
        let parts: Vec<_> = profile
            .parts
            .iter()
            .map(|p| (&*p.name, p.percent))
            .collect();
        assert_eq!(
            parts,
            [
                ("AES-GCM", 15.0),
                ("copies between user and kernel", 10.0),
                ("network stack and system calls", 7.5),
                ("memory: allocation and copies", 5.0),
            ]
        );
        assert_eq!(profile.functions[1].name, "kernel: _copy_to_iter");
        assert_eq!(profile.functions.len(), 5);
    }

    #[test]
    fn a_report_in_another_form_is_refused() {
        assert!(parse("x%\tcorelane\t[.] f\n").is_err());
        assert!(parse("1.0%\tcorelane\tf\n").is_err());
    }
}
