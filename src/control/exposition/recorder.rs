//! Recorder behind the `metrics` façade, for the few series of the control plane, and its part of
//! the page.
//!
//! The exporter writes the older Prometheus text; here each family gets the head of our one list
//! instead, so that names, helps and units are stated in one place only.

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::telemetry::page::Page;

/// Bucket bounds in seconds of control-plane durations.
const BOUNDS_SECONDS: [f64; 9] = [0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The contract's bounds for forwarded DNS queries (spec: telemetry 2.1).
const DNS_BOUNDS_SECONDS: [f64; 6] = [0.000_5, 0.001, 0.01, 0.1, 1.0, 5.0];

/// Makes the recorder; the caller installs it.
///
/// # Errors
/// The exporter refuses its settings.
pub fn build() -> Result<PrometheusRecorder, BuildError> {
    Ok(PrometheusBuilder::new()
        .with_recommended_naming(true)
        .set_buckets(&BOUNDS_SECONDS)?
        .set_buckets_for_metric(
            Matcher::Full("istio_dns_upstream_request_duration_seconds".to_owned()),
            &DNS_BOUNDS_SECONDS,
        )?
        .build_recorder())
}

/// Installs the process's recorder.
///
/// # Errors
/// One is installed already, or the exporter refuses its settings.
pub fn install() -> Result<PrometheusHandle, InstallError> {
    let recorder = build()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| InstallError::Installed)?;
    Ok(handle)
}

/// Why the recorder was not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Another is in place.
    #[error("a metrics recorder is already installed")]
    Installed,
    /// The exporter refuses its settings.
    #[error("metrics recorder: {0}")]
    Settings(#[from] BuildError),
}

/// One family as the exporter wrote it.
struct Block<'a> {
    name: &'a str,
    kind: &'a str,
    samples: Vec<&'a str>,
}

/// Appends the recorder's families, sorted by name.
pub fn render(handle: &PrometheusHandle, page: &mut Page) {
    handle.run_upkeep();
    let text = handle.render();
    for block in blocks(&text) {
        page.recorded(block.name, block.kind, &block.samples);
    }
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            // OpenMetrics names the family without the suffix of its samples.
            let name = name.strip_suffix("_total").unwrap_or(name);
            blocks.push(Block {
                name,
                kind,
                samples: Vec::new(),
            });
        } else if let Some(block) = blocks.last_mut()
            && !line.is_empty()
            && !line.starts_with('#')
        {
            block.samples.push(line);
        }
    }
    blocks.sort_by_key(|block| block.name);
    for block in &mut blocks {
        // The exporter keeps label sets in a hash map; buckets keep their order.
        if block.kind != "histogram" {
            block.samples.sort_unstable();
        }
    }
    blocks
}
