//! Start-up order, the main loop, and the orderly stop (spec: lifecycle.md 2 and 4).

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::RunError;
use super::background::{Agent, Background};
use super::bind::{BindError, bind_all, component};
use super::credentials::Certificates;
use super::discovery::Discovery;
use super::dns::Dns;
use super::ending::{Ending, log_stopped};
use super::servers::{self, Sources};
use super::shards::{Seed, ShardEvent, Shards};
use super::signals::{self, Signals};
use super::spans;
use super::state::State;
use super::supervision::Supervision;
use super::workloads::{processes, prove_abilities};
use crate::config::{Config, LogFormat};
use crate::control::exposition::recorder;
use crate::control::local_state::LocalStateError;
use crate::control::logging::{Filter, Logging, writer_options};
use crate::control::readiness::{Readiness, Task};
use crate::control::revocation::RevocationFileError;
use crate::dataplane::balance::Neighbour;
use crate::dataplane::rt;
use crate::dataplane::shard::Plan;
use crate::sys;
use crate::telemetry::line::LineFormat;
use crate::telemetry::{Hub, HubOptions, LogWriter};

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log could not be started.
    #[error("cannot start the log: {0}")]
    Log(String),
    /// A thread, eventfd or runtime could not be made.
    #[error("cannot start {what}: {source}")]
    Resource {
        /// What was to be made.
        what: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The local state is unusable.
    #[error(transparent)]
    State(#[from] LocalStateError),
    /// The revocation lists are unusable.
    #[error("revocation lists: {0}")]
    Revocation(#[from] RevocationFileError),
    /// A data-plane listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An endpoint for operators could not be bound.
    #[error("failed to bind to address {addr} ({what}): {source}")]
    Endpoint {
        /// Which one.
        what: &'static str,
        /// Its address.
        addr: SocketAddr,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// A node lacks a privilege that its mode needs.
    #[error("mode `{mode}` cannot {what}: {source}; it needs {needs}")]
    Unable {
        /// Which mode.
        mode: &'static str,
        /// What it cannot do.
        what: &'static str,
        /// Capability, or what else.
        needs: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The DNS proxy has nobody to ask.
    #[error("the DNS proxy has no name servers: {0}")]
    NameServers(String),
    /// A shard's driver could not be built.
    #[error("shard {index} cannot start: {why}")]
    Shard {
        /// Number of the shard.
        index: usize,
        /// What failed.
        why: String,
    },
}

/// Time the log gets to write its last lines.
const LOG_FLUSH: Duration = Duration::from_secs(1);

/// Runs a node until a signal or `/quitquitquit` has drained it.
///
/// # Errors
/// [`RunError`], whose exit code says what went wrong.
pub fn run(config: Config) -> Result<(), RunError> {
    let started = Instant::now();
    #[cfg(feature = "faults")]
    if let Some(port) = crate::config::raw::fault_panic_port() {
        crate::dataplane::faults::panic_on(port);
    }
    let filter = Filter::at_start(Some(&config.log.filter))
        .map_err(|error| StartError::Log(format!("RUST_LOG: {error}")))?;
    let format = match config.log.format {
        LogFormat::Plain => LineFormat::Plain,
        LogFormat::Json => LineFormat::Json,
    };
    let options = writer_options(&filter, format, Box::new(io::stdout()));
    let log = LogWriter::start(options).map_err(resource("the log writer"))?;
    let logging = Logging::new(filter, log.sink());
    logging
        .install()
        .map_err(|error| StartError::Log(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(resource("the control runtime"))?;
    let local = tokio::task::LocalSet::new();
    let node = node(Arc::new(config), logging, &log, started);
    let result = runtime.block_on(local.run_until(node));
    match &result {
        Ok(()) => tracing::info!(target: "corelane::app", "shutdown complete"),
        Err(error) => tracing::error!(target: "corelane::app", "{error}"),
    }
    let _flushed = log.stop(LOG_FLUSH);
    result
}

fn resource(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Resource { what, source }
}

async fn node(
    config: Arc<Config>,
    logging: Logging,
    log: &LogWriter,
    started: Instant,
) -> Result<(), RunError> {
    let (mut signals, hangups, descriptors) = begin(&config)?;
    let readiness = Readiness::new(started);
    let home = prove_abilities(&config)?;
    let [state_task, proxy_task] = ["state manager", "proxy"].map(|name| readiness.task(name));
    let recorder = recorder::install().map_err(|error| StartError::Log(error.to_string()))?;
    let state = State::load(&config).map_err(StartError::from)?;
    let certificates = Certificates::start(&config, &state.current()).await?;
    let endpoints = servers::bind(&config)?;
    let (hub, exporting) = spans::hub(&config, hub_options(&config), log.sink());
    let discovery = Discovery::new(&config, &certificates);
    let dns = Dns::bind(&config, &readiness)?;
    let started_from = Started {
        config: &config,
        state: &state,
        certificates: &certificates,
        discovery: discovery.as_ref(),
        dns: &dns,
        hub: &hub,
        descriptors,
    };
    let mut shards = start_shards(&started_from).await?;
    let watchdog = shards.watchdog();
    let quit = Arc::new(Notify::new());
    let (stop, stopped) = watch::channel(false);
    let mailboxes = shards.mailboxes();
    let (mut names, pods) = dns.start(&config, &state, mailboxes.clone(), &stopped)?;
    let agent = home.map(|home| Agent::new(&config, (home, pods), mailboxes, &stopped, &readiness));
    let supervision = Supervision::new(hangups, &watchdog, &readiness, &state, &stopped, &config);
    let servers = servers::serve(
        endpoints,
        Sources {
            config: Arc::clone(&config),
            hub: Arc::clone(&hub),
            recorder: recorder.clone(),
            logging,
            readiness,
            state: state.subscribe(),
            credentials: certificates.subscribe(),
            watchdog: watchdog.clone(),
            workloads: agent.as_ref().map(Agent::view),
            shards: shards.mailboxes(),
            quit: ending(&quit),
        },
        &stopped,
    );
    announce(proxy_task, started, supervision);
    let background = Background {
        config: &config,
        state,
        discovery,
        certificates: Rc::clone(&certificates),
        mailboxes: shards.mailboxes(),
        hub: &hub,
        recorder,
        generation: names.published(),
        ready: state_task,
        agent,
    };
    // Goes on while the shards drain: requests in flight are answered, and policies still change.
    let beside = Box::pin(background.beside(servers));
    let ended = Ending {
        quit: &quit,
        watchdog,
        stop,
        deadline: config.timeouts.drain,
    }
    .await_it(&mut shards, &mut names, &mut signals, beside)
    .await;
    finish(ended, exporting, &config).await
}

async fn finish(
    ended: Result<(), RunError>,
    exporting: spans::Exporting,
    config: &Config,
) -> Result<(), RunError> {
    exporting.end().await;
    if ended.is_ok() {
        log_stopped(config);
    }
    ended
}

/// What comes before everything else: signals are caught, descriptors allowed.
fn begin(config: &Config) -> Result<(Signals, Signal, u64), StartError> {
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(target: "corelane::app", version, "corelane starting");
    servers::log_configuration(config);
    let signals = Signals::register().map_err(resource("the signal handlers"))?;
    let hangups = signals::hangups().map_err(resource("the signal handlers"))?;
    Ok((signals, hangups, raise_descriptors()))
}

/// Sockets are bound, and shards run: tells everybody, now and later. Must run within a `LocalSet`.
fn announce(proxy: Task, started: Instant, supervision: Supervision) {
    proxy.done(now());
    tracing::info!(target: "corelane::app", elapsed = ?started.elapsed(), "node started");
    tokio::task::spawn_local(supervision.keep());
}

/// Ends the node when it is called.
fn ending(quit: &Arc<Notify>) -> Box<dyn Fn() + Send + Sync> {
    let quit = Arc::clone(quit);
    Box::new(move || quit.notify_one())
}

/// The runtime's clock.
fn now() -> Instant {
    Instant::now()
}

fn raise_descriptors() -> u64 {
    match sys::fds::raise_limit() {
        Ok((before, now)) => {
            tracing::info!(target: "corelane::app", before, now, "descriptor limit set");
        }
        Err(error) => {
            tracing::warn!(target: "corelane::app", %error, "cannot raise the descriptor limit");
        }
    }
    sys::fds::limit()
}

fn hub_options(config: &Config) -> HubOptions {
    HubOptions {
        series_max: config.limits.metric_series,
        access_log_lines: config.limits.access_log_lines,
        ..HubOptions::default()
    }
}

/// What shards are started from.
struct Started<'a> {
    config: &'a Arc<Config>,
    state: &'a State,
    certificates: &'a Certificates,
    discovery: Option<&'a Discovery>,
    dns: &'a Dns,
    hub: &'a Hub,
    descriptors: u64,
}

async fn start_shards(from: &Started<'_>) -> Result<Shards, StartError> {
    let Started {
        config,
        state,
        certificates,
        discovery,
        dns,
        hub,
        descriptors,
    } = *from;
    let listeners = bind_all(config)?;
    let mut neighbours = Vec::with_capacity(listeners.len());
    let mut inboxes = Vec::with_capacity(listeners.len());
    for _ in &listeners {
        let (mailbox, inbox) = rt::mailbox().map_err(resource("a shard's mailbox"))?;
        neighbours.push(Neighbour {
            mailbox,
            load: Arc::default(),
        });
        inboxes.push(inbox);
    }
    let mut seeds = Vec::new();
    for (index, (listeners, inbox)) in listeners.into_iter().zip(inboxes).enumerate() {
        if index == 0 {
            for listener in &listeners {
                tracing::info!(
                    target: "corelane::app",
                    address = %listener.addr,
                    component = component(&listener.role),
                    transparent = listener.transparent,
                    "listener established"
                );
            }
        }
        let mailbox = neighbours[index].mailbox.clone();
        let shards = if config.shards.balance {
            neighbours.clone()
        } else {
            Vec::new()
        };
        let plan = Plan {
            index,
            config: Arc::clone(config),
            state: state.subscribe(),
            credentials: certificates.subscribe(),
            telemetry: hub.shard(index),
            listeners,
            shards,
            inbox,
            questions: dns.questions(),
            heartbeat: Arc::default(),
            open: discovery.is_none(),
            asker: discovery.and_then(|discovery| discovery.asker(index)),
            certificates: certificates.asker(),
            processes: processes(config)?,
            descriptors,
        };
        let cpus = &config.shards.cpus;
        let cpu = (config.shards.pin && config.shards.count <= cpus.len())
            .then(|| cpus[index % cpus.len()]);
        seeds.push(Seed { plan, mailbox, cpu });
    }
    let mut shards = Shards::start(seeds).map_err(resource("a shard's thread"))?;
    await_drivers(&mut shards).await?;
    certificates.tell(shards.mailboxes());
    Ok(shards)
}

/// Waits until every shard's driver runs.
async fn await_drivers(shards: &mut Shards) -> Result<(), StartError> {
    let mut waiting = shards.count();
    while waiting > 0 {
        match shards.event().await {
            Some(ShardEvent::Started { index, driver }) => {
                waiting -= 1;
                let (name, entries) = (driver.kind, driver.entries);
                match driver.fallback {
                    None => {
                        tracing::info!(target: "corelane::shard", index, driver = %name, entries, "shard started");
                    }
                    Some(reason) => {
                        tracing::warn!(
                            target: "corelane::shard", index, driver = %name, entries, reason,
                            "shard started on a slower driver"
                        );
                    }
                }
            }
            Some(ShardEvent::Ended { index, result }) => {
                let why = result.err().unwrap_or_else(|| "ended at once".to_owned());
                return Err(StartError::Shard { index, why });
            }
            None => break,
        }
    }
    Ok(())
}
