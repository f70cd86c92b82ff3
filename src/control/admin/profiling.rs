//! CPU and heap profiles in the format of pprof (spec: admin.md 2). Only with the feature `pprof`.

mod heap;
mod profile;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;

use super::blocking;
use crate::control::http::{HandlerError, Request, Response, respond, text};
use crate::sys::heap_profile;
use profile::{Frame, ProfileBuilder};

const PROTOBUF: &str = "application/octet-stream";

/// Length of a CPU profile and how often the program is looked at.
const SECONDS: (u32, RangeInclusive<u32>) = (10, 1..=300);
const FREQUENCY: (u32, RangeInclusive<u32>) = (100, 1..=1_000);

/// Unwinding through these from a signal handler may deadlock.
const BLOCKED_LIBRARIES: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// Where the library's own frames end.
const SIGNAL_HANDLER: &str = "perf_signal_handler";

/// `/debug/pprof/profile`: CPU time of all threads for some seconds.
pub(super) async fn cpu(request: &Request) -> Result<Response, HandlerError> {
    let Some(seconds) = number(request, "seconds", &SECONDS) else {
        return Ok(out_of_range("seconds", &SECONDS));
    };
    let Some(frequency) = number(request, "frequency", &FREQUENCY) else {
        return Ok(out_of_range("frequency", &FREQUENCY));
    };
    let started = SystemTime::now();
    let profiler = pprof::ProfilerGuardBuilder::default()
        .frequency(i32::try_from(frequency).unwrap_or(i32::MAX))
        .blocklist(&BLOCKED_LIBRARIES)
        .build()
        .map_err(|error| failed("CPU profile not started, is another one running?", &error))?;
    // Dropped with the request, the profile ends.
    let duration = Duration::from_secs(seconds.into());
    tokio::time::sleep(duration).await;
    let body = blocking(move || {
        let report = profiler.report().build();
        let report = report.map_err(|error| failed("CPU profile", &error))?;
        drop(profiler);
        let period = Duration::from_secs(1) / frequency;
        Ok(cpu_profile(&report, started, duration, period))
    });
    Ok(respond(StatusCode::OK, PROTOBUF, body.await?))
}

fn cpu_profile(
    report: &pprof::Report,
    started: SystemTime,
    duration: Duration,
    period: Duration,
) -> Vec<u8> {
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let types = [("samples", "count"), ("cpu", "nanoseconds")];
    let mut profile = ProfileBuilder::new(&types, ("cpu", "nanoseconds"), nanos(period));
    profile.time(started, duration);
    for (stack, count) in &report.data {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        let symbols = stack.frames.iter().flatten();
        let mut frames: Vec<_> = symbols
            .map(|symbol| Frame {
                name: symbol.name(),
                file: symbol.filename().into_owned(),
                line: symbol.lineno().into(),
            })
            .collect();
        if let Some(handler) = frames.iter().position(|f| f.name.contains(SIGNAL_HANDLER)) {
            frames.drain(..=handler);
        }
        let values = vec![count, count.saturating_mul(nanos(period))];
        profile.symbolized(&frames, values, Some(("thread", &stack.thread_name)));
    }
    profile.encode()
}

/// `/debug/pprof/heap`: what is allocated now, of what was allocated while profiling was active.
pub(super) async fn heap() -> Result<Response, HandlerError> {
    if !heap_profile::is_available() {
        return Err(HandlerError(NO_HEAP_PROFILES.to_owned()));
    }
    if !active()? {
        return Err(HandlerError(
            "heap profiling is not active; activate it with \
             /debug/pprof/heap/profiling?activate=true and ask again after a while\n"
                .to_owned(),
        ));
    }
    let body = blocking(|| {
        let dump = heap_profile::dump().map_err(|error| failed("heap profile", &error))?;
        let profile = heap::profile(&dump, SystemTime::now());
        let profile = profile.map_err(|error| failed("heap profile", &error))?;
        heap::compress(&profile).map_err(|error| failed("heap profile", &error))
    });
    // No content coding: the file itself is compressed, and stays so where it is saved.
    Ok(respond(StatusCode::OK, PROTOBUF, body.await?))
}

const NO_HEAP_PROFILES: &str = "heap profiling is not available: the allocator is not jemalloc with \
                                profiling\n";

/// `/debug/pprof/heap/profiling`: whether allocations are sampled, or from now on.
pub(super) fn heap_profiling(request: &Request) -> Result<Response, HandlerError> {
    if !heap_profile::is_available() {
        return Err(HandlerError(NO_HEAP_PROFILES.to_owned()));
    }
    match request.query("activate").as_deref() {
        None => {}
        Some(word @ ("true" | "false")) => {
            let set = heap_profile::set_active(word == "true");
            set.map_err(|error| failed("heap profiling", &error))?;
        }
        Some(_) => {
            let body = "invalid activate value; expected true or false\n";
            return Ok(text(StatusCode::BAD_REQUEST, body));
        }
    }
    let body = format!("heap profiling active: {}\n", active()?);
    Ok(text(StatusCode::OK, body))
}

fn active() -> Result<bool, HandlerError> {
    heap_profile::is_active().map_err(|error| failed("heap profiling", &error))
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> HandlerError {
    HandlerError(format!("{what}: {error}\n"))
}

/// A parameter, or its default. `None`: out of range.
fn number(request: &Request, name: &str, bounds: &(u32, RangeInclusive<u32>)) -> Option<u32> {
    match request.query(name) {
        None => Some(bounds.0),
        Some(text) => text.parse().ok().filter(|value| bounds.1.contains(value)),
    }
}

fn out_of_range(name: &str, bounds: &(u32, RangeInclusive<u32>)) -> Response {
    let (first, last) = (bounds.1.start(), bounds.1.end());
    let body = format!("invalid {name} value; expected {first}-{last}\n");
    text(StatusCode::BAD_REQUEST, body)
}
