//! Metrics endpoint: one page from the shards' cells, the process and the control plane's recorder.

pub mod encoding;
pub mod recorder;

use std::fmt::{self, Debug};
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::Instant;

use super::http::{Answer, Handler, HandlerError, Request, Response, empty, respond};
use crate::telemetry::Hub;
use crate::telemetry::families as f;
use crate::telemetry::page::Page;

const OPENMETRICS: &str = "application/openmetrics-text";
const OPENMETRICS_FULL: &str = "application/openmetrics-text;charset=utf-8;version=1.0.0";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Time left of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateLife {
    /// SPIFFE ID.
    pub identity: String,
    /// Seconds until it expires, negative once it has.
    pub seconds_left: i64,
}

/// States the certificates the node holds now.
pub type CertificateLives = Box<dyn Fn() -> Vec<CertificateLife> + Send + Sync>;

/// What the page is made of.
pub struct ExpositionSources {
    /// The shards' cells.
    pub hub: Arc<Hub>,
    /// The control plane's recorder.
    pub recorder: PrometheusHandle,
    /// Mesh release (`ISTIO_META_ISTIO_VERSION`), `unknown` when unset.
    pub mesh_version: Arc<str>,
    /// Certificates.
    pub certificates: CertificateLives,
}

impl Debug for ExpositionSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpositionSources")
            .field("hub", &self.hub)
            .field("mesh_version", &self.mesh_version)
            .finish_non_exhaustive()
    }
}

impl ExpositionSources {
    /// Writes the page.
    #[must_use]
    pub fn render(&self, now: std::time::Instant) -> String {
        let mut page = Page::default();
        page.family(&f::ISTIO_BUILD, |samples| {
            samples.sample(&["ztunnel", &self.mesh_version], 1);
        });
        page.family(&f::BUILD, |samples| {
            samples.sample(&[env!("CARGO_PKG_VERSION")], 1)
        });
        render_process(&mut page);
        self.hub.render(&mut page, now);
        page.family(&f::CERTIFICATE_SECONDS_LEFT, |samples| {
            for life in (self.certificates)() {
                samples.sample(&[&life.identity], life.seconds_left);
            }
        });
        recorder::render(&self.recorder, &mut page);
        page.finish()
    }
}

/// Descriptors of the process. What cannot be read is left out.
fn render_process(page: &mut Page) {
    page.family(&f::OPEN_FDS, |samples| {
        // Reading the directory opens one more.
        if let Ok(entries) = std::fs::read_dir("/dev/fd") {
            samples.sample(&[], entries.count().saturating_sub(1));
        }
    });
    page.family(&f::MAX_FDS, |samples| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        samples.sample(&[], limit.current.unwrap_or(u64::MAX));
    });
}

/// The endpoint.
#[derive(Debug)]
pub struct ExpositionHandler {
    sources: Arc<ExpositionSources>,
}

impl ExpositionHandler {
    /// Serves the page made of `sources`.
    #[must_use]
    pub fn new(sources: ExpositionSources) -> Self {
        Self {
            sources: Arc::new(sources),
        }
    }

    /// Writing and compressing a page of 10,000 series takes tens of milliseconds, so both run
    /// beside the control thread.
    async fn page(&self, headers: &HeaderMap) -> Result<Response, HandlerError> {
        let content_type = if wants_openmetrics(headers) {
            OPENMETRICS_FULL
        } else {
            PLAIN
        };
        let encoding = encoding::choose(headers);
        let sources = Arc::clone(&self.sources);
        let now = Instant::now();
        let work = move || {
            let page = sources.render(now.into_std());
            let seconds = now.elapsed();
            metrics::histogram!("corelane_scrape_seconds").record(seconds);
            encoding::encode(encoding, page)
        };
        let done = tokio::task::spawn_blocking(work).await;
        let body = done.map_err(|error| HandlerError(format!("metrics page: {error}")))?;
        let body = body.map_err(|error| HandlerError(format!("metrics page: {error}")))?;
        let mut response = respond(StatusCode::OK, content_type, body);
        let headers = response.headers_mut();
        if let Some(name) = encoding.header() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        debug_assert!(headers.contains_key(CONTENT_TYPE));
        Ok(response)
    }
}

impl Handler for ExpositionHandler {
    fn handle(&self, request: Request) -> Answer<'_> {
        Box::pin(async move {
            match request.path() {
                "/metrics" | "/stats/prometheus" => self.page(&request.headers).await,
                _ => Ok(empty(StatusCode::NOT_FOUND)),
            }
        })
    }
}

/// Whether an element of an `Accept` header is the OpenMetrics type, exactly as the reference
/// compares it: lower-cased, cut at the first `;`, no blank before it tolerated.
fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let lines = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|element| {
        let kind = element.split(';').next().unwrap_or_default();
        kind.eq_ignore_ascii_case(OPENMETRICS)
    })
}

#[cfg(test)]
mod tests;
