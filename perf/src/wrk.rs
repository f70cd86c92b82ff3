//! Reads wrk's report.

use crate::error::{Error, Result};

/// What wrk counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Answers received.
    pub requests: f64,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Median latency, microseconds.
    pub p50_us: f64,
    /// 99th percentile of the latency, microseconds.
    pub p99_us: f64,
    /// Socket errors and answers other than 2xx and 3xx.
    pub failures: u64,
}

/// Parses the output of `wrk --latency`.
///
/// # Errors
/// If a line is missing.
pub fn parse(output: &str) -> Result<Report> {
    read(output).ok_or_else(|| Error::Unreadable {
        what: "wrk".into(),
        why: format!("not its report:\n{output}"),
    })
}

fn read(output: &str) -> Option<Report> {
    let mut report = Report::default();
    let mut complete = [false; 3];
    for line in output.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("50%") {
            report.p50_us = microseconds(rest.trim())?;
            complete[0] = true;
        } else if let Some(rest) = line.strip_prefix("99%") {
            report.p99_us = microseconds(rest.trim())?;
            complete[1] = true;
        } else if let Some((requests, rest)) = line.split_once(" requests in ") {
            report.requests = requests.parse().ok()?;
            report.seconds = microseconds(rest.split(',').next()?)? / 1e6;
            complete[2] = true;
        } else if let Some(rest) = line.strip_prefix("Socket errors:") {
            let counts = rest.split(|c: char| !c.is_ascii_digit());
            report.failures += counts.filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
        } else if let Some(rest) = line.strip_prefix("Non-2xx or 3xx responses:") {
            report.failures += rest.trim().parse::<u64>().ok()?;
        }
    }
    complete.iter().all(|c| *c).then_some(report)
}

/// `56.00us`, `1.2ms`, `2.00s`, `1.00m` in microseconds.
fn microseconds(text: &str) -> Option<f64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        "h" => 3_600e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 2s test @ http://10.41.2.2:8080/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   476.62us  139.88us   7.70ms   93.04%
    Req/Sec    67.10k     3.78k   71.40k    85.00%
  Latency Distribution
     50%  468.00us
     75%  503.00us
     90%  556.00us
     99%    1.05ms
  267040 requests in 2.01s, 10.44MB read
Requests/sec: 133135.09
Transfer/sec:      5.21MB
";

    #[test]
    fn counts_and_percentiles_are_read() {
        let report = parse(OUTPUT).unwrap();
        assert_eq!((report.requests, report.failures), (267_040.0, 0));
        assert!((report.seconds - 2.01).abs() < 1e-9);
        assert!((report.p50_us - 468.0).abs() < 1e-9);
        assert!((report.p99_us - 1_050.0).abs() < 1e-9);
    }

    #[test]
    fn socket_errors_and_bad_answers_are_failures() {
        let errors = "  Socket errors: connect 1, read 20, write 0, timeout 3\n  Non-2xx or 3xx responses: 5\n";
        assert_eq!(parse(&format!("{OUTPUT}{errors}")).unwrap().failures, 29);
    }

    #[test]
    fn each_unit_of_time_is_known() {
        for (text, expected) in [
            ("2.50us", 2.5),
            ("1.5ms", 1_500.0),
            ("2.00s", 2e6),
            ("1.00m", 6e7),
        ] {
            assert_eq!(microseconds(text), Some(expected), "{text}");
        }
        assert_eq!(microseconds("1.0parsec"), None);
        assert_eq!(microseconds("12"), None);
    }

    #[test]
    fn half_a_report_is_an_error() {
        assert!(parse(&OUTPUT.replace("99%", "98%")).is_err());
        assert!(parse("unable to connect to 10.41.2.2:8080 Connection refused").is_err());
    }
}
