//! Admin endpoints on loopback: state dump, log levels, shutdown, status (spec: admin 2 to 5).
//!
//! Nothing here is authenticated, so a request that a web page made a browser send is refused: one
//! whose `Host` or `Origin` is not this machine, or that the browser itself calls cross-site.

pub mod guard;
#[cfg(feature = "pprof")]
mod profiling;
pub mod status;

use std::fmt::{self, Debug};
use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use super::http::{Answer, Handler, HandlerError, Request, Response, empty, respond, text};
use super::logging::Logging;

/// Makes one member of the dump, when asked.
pub type SectionSource = Box<dyn Fn() -> Result<Value, String> + Send + Sync>;

/// Makes several members of the dump, when asked.
pub type LiveSource = Box<dyn Fn() -> Vec<(&'static str, Value)> + Send + Sync>;

/// One top-level member of `/config_dump`.
pub struct Section {
    /// Name of the member.
    pub name: &'static str,
    /// Its value. An error is logged and leaves the member `null`.
    pub source: SectionSource,
}

impl Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Section").field(&self.name).finish()
    }
}

/// What the endpoints need.
pub struct AdminSources {
    /// Log levels.
    pub logging: Logging,
    /// Members of `/config_dump`, beside `version`.
    pub sections: Vec<Section>,
    /// More members, of what is going on now. May wait for the data plane.
    pub live: LiveSource,
    /// Mesh release (`ISTIO_META_ISTIO_VERSION`), `unknown` when unset.
    pub mesh_version: Arc<str>,
    /// Answer of `/status`.
    pub status: status::StatusSources,
    /// Starts the graceful shutdown; must not wait for it.
    pub quit: Box<dyn Fn() + Send + Sync>,
}

impl Debug for AdminSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.sections.iter().map(|section| section.name).collect();
        f.debug_struct("AdminSources")
            .field("sections", &names)
            .finish_non_exhaustive()
    }
}

/// The endpoints.
#[derive(Debug)]
pub struct AdminHandler {
    sources: Arc<AdminSources>,
}

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// Path, methods and purpose of each endpoint, for the index page.
const INDEX: &[(&str, &str, &str)] = &[
    (
        "/config_dump",
        "GET",
        "state of the mesh as this node knows it, certificates, configuration",
    ),
    (
        "/status",
        "GET",
        "shards, tunnels, certificates, latest errors",
    ),
    (
        "/logging",
        "POST",
        "log levels: ?level=LEVEL, ?level=TARGET=LEVEL, ?reset",
    ),
    ("/quitquitquit", "POST", "shut down gracefully"),
    ("/debug/pprof/profile", "GET", "CPU profile"),
    ("/debug/pprof/heap", "GET", "heap profile"),
    (
        "/debug/pprof/heap/profiling",
        "GET",
        "heap profiling on or off",
    ),
];

const LOGGING_HELP: &str = "\
usage: POST /logging                      show the levels
       POST /logging?level=LEVEL          set the level of targets without one of their own
       POST /logging?level=TARGET=LEVEL   set the level of a target, e.g. access=debug
       POST /logging?reset                return to the levels at start
levels: off, error, warn, info, debug, trace; several directives are separated by commas,
and level and reset may be combined
";

impl AdminHandler {
    /// Serves the endpoints from `sources`.
    #[must_use]
    pub fn new(sources: AdminSources) -> Self {
        Self {
            sources: Arc::new(sources),
        }
    }

    async fn route(&self, request: &Request) -> Result<Response, HandlerError> {
        if let Err(refused) = guard::check(request) {
            return Ok(text(StatusCode::FORBIDDEN, format!("{refused}\n")));
        }
        match request.path() {
            "/" => Ok(respond(StatusCode::OK, HTML, index())),
            "/config_dump" => self.config_dump().await,
            "/status" => self.status().await,
            "/logging" => Ok(self.logging(request)),
            "/quitquitquit" => Ok(self.quit(request)),
            #[cfg(feature = "pprof")]
            "/debug/pprof/profile" => profiling::cpu(request).await,
            #[cfg(feature = "pprof")]
            "/debug/pprof/heap" => profiling::heap().await,
            #[cfg(feature = "pprof")]
            "/debug/pprof/heap/profiling" => profiling::heap_profiling(request),
            #[cfg(not(feature = "pprof"))]
            "/debug/pprof/profile" | "/debug/pprof/heap" | "/debug/pprof/heap/profiling" => {
                let body = "built without profiling; build with `--features pprof`\n";
                Ok(text(StatusCode::NOT_IMPLEMENTED, body))
            }
            _ => Ok(empty(StatusCode::NOT_FOUND)),
        }
    }

    /// A dump of 100,000 workloads takes a while: it is made beside the control thread.
    async fn config_dump(&self) -> Result<Response, HandlerError> {
        let sources = Arc::clone(&self.sources);
        let body = blocking(move || {
            let mut dump = Map::new();
            dump.insert("version".to_owned(), version(&sources.mesh_version));
            for section in &sources.sections {
                let value = (section.source)().unwrap_or_else(|error| {
                    tracing::warn!(section = section.name, error, "section missing in the dump");
                    Value::Null
                });
                dump.insert(section.name.to_owned(), value);
            }
            let live = (sources.live)().into_iter();
            dump.extend(live.map(|(name, value)| (name.to_owned(), value)));
            json(&dump)
        });
        Ok(respond(StatusCode::OK, JSON, body.await?))
    }

    async fn status(&self) -> Result<Response, HandlerError> {
        let sources = Arc::clone(&self.sources);
        let body = blocking(move || json(&sources.status.report()));
        Ok(respond(StatusCode::OK, JSON, body.await?))
    }

    fn logging(&self, request: &Request) -> Response {
        if request.method != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, LOGGING_HELP);
        }
        let level = request.query("level").unwrap_or_default();
        let reset = request.query("reset").is_some();
        let logging = &self.sources.logging;
        if (reset || !level.is_empty())
            && let Err(refused) = logging.change(&level, reset)
        {
            let body = format!("Invalid level provided: {level}\n{refused}\n{LOGGING_HELP}");
            return text(StatusCode::BAD_REQUEST, body);
        }
        text(
            StatusCode::OK,
            format!("current log level is {}\n", logging.current()),
        )
    }

    fn quit(&self, request: &Request) -> Response {
        if request.method != Method::POST {
            return empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        tracing::info!("shutdown asked for by /quitquitquit");
        (self.sources.quit)();
        text(StatusCode::OK, "shutdown now\n")
    }
}

impl Handler for AdminHandler {
    fn handle(&self, request: Request) -> Answer<'_> {
        Box::pin(async move { self.route(&request).await })
    }
}

/// Makes a body beside the control thread.
async fn blocking(
    work: impl FnOnce() -> Result<Vec<u8>, HandlerError> + Send + 'static,
) -> Result<Vec<u8>, HandlerError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| HandlerError(error.to_string()))?
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, HandlerError> {
    serde_json::to_vec_pretty(value).map_err(|error| HandlerError(error.to_string()))
}

/// The member `version`: what was built, from what, how.
fn version(mesh_version: &str) -> Value {
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "gitRevision": option_env!("CORELANE_GIT_REVISION").unwrap_or("unknown"),
        "rustVersion": option_env!("CORELANE_RUST_VERSION").unwrap_or("unknown"),
        "buildProfile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "buildStatus": option_env!("CORELANE_BUILD_STATUS").unwrap_or("unknown"),
        "istioVersion": mesh_version,
        "cryptoProvider": "aws-lc-rs",
    })
}

fn index() -> String {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html><head><title>Corelane admin</title></head><body>\n\
         <h1>Corelane admin</h1>\n<table>\n",
    );
    for (path, method, purpose) in INDEX {
        page.push_str(&format!(
            "<tr><td><a href=\"{path}\">{path}</a></td><td>{method}</td><td>{purpose}</td></tr>\n"
        ));
    }
    page.push_str("</table>\n</body></html>\n");
    page
}

#[cfg(test)]
mod tests;
