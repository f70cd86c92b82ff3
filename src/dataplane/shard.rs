//! One shard: a thread on one core with its own ring, listeners, tunnels, table and counters.
//!
//! [`Plan`] comes from the control thread, [`run`] turns it into a running shard and returns when
//! the shard has drained. Messages arrive by the mailbox.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::admission::{Admission, Slots};
use super::balance::Balance;
use super::demand::Demand;
use super::hostnames::Hostnames;
use super::listener::{self, Kind};
use super::local::LocalKey;
use super::pool::Pool;
use super::recheck;
use super::relay;
use super::rt::{self, DriverReport, First, Pulse, Signal};
use super::slot::Slot;
use super::table::Table;
use super::tunnel_settings;
use crate::config::Config;
use crate::hbone;
use crate::model::close::CloseReason;
use crate::model::identity::Identity;
use crate::snapshot::Snapshot;
use crate::snapshot::exchange::Reader;
use crate::telemetry::ShardTelemetry;
use crate::telemetry::counters::{DriverInfo, Limit};
use crate::telemetry::flow::Direction;
use crate::tls::credentials::{CredentialStore, Credentials, IdentityError};

use task::Counted;

pub use plan::{CertificateAsker, ListenerRole, Message, Plan, PlannedListener, ShardMailbox};

mod plan;
mod task;

/// The running shard, shared by its tasks.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) config: Arc<Config>,
    pub(crate) telemetry: Rc<ShardTelemetry>,
    pub(crate) pool: Pool,
    pub(crate) table: Rc<Table>,
    pub(crate) admission: Rc<Admission>,
    /// Beats when state or credentials change.
    pub(crate) changed: Pulse,
    /// Accept: the mesh state is complete.
    pub(crate) open: Signal<()>,
    /// Look-ups that wait for the control plane.
    pub(crate) demand: Demand,
    /// Stop accepting.
    pub(crate) drain: Signal<()>,
    /// End everything.
    pub(crate) force: Signal<()>,
    /// A task without which the shard must not go on has panicked; its name.
    broken: Signal<&'static str>,
    pub(crate) hbone: hbone::Settings,
    pub(crate) hostnames: Hostnames,
    slots: Slots,
    pub(super) balance: Balance,
    /// What its listeners are for, by position.
    kinds: Vec<Kind>,
    state: Reader<Snapshot>,
    credentials: Reader<CredentialStore>,
    certificates: Option<CertificateAsker>,
    tasks: Cell<usize>,
    idle: Pulse,
    random: RefCell<fastrand::Rng>,
    warned_source: Cell<bool>,
}

/// Runs a shard on the calling thread until it has drained.
///
/// # Errors
/// When no driver could be built, or a listener cannot be registered with it.
pub fn run(plan: Plan, started: impl FnOnce(&DriverReport)) -> io::Result<()> {
    let (driver, entries) = (plan.config.driver, plan.config.ring_entries);
    relay::tuned::set(&plan.config.tuning);
    rt::block_on_with(driver, plan.config.tuning.ring_flags, entries, |report| {
        started(&report);
        serve(plan, report)
    })?
}

fn driver_info(report: &DriverReport) -> DriverInfo {
    DriverInfo {
        name: report.kind.as_str(),
        fallback: report.fallback.clone().unwrap_or_default(),
    }
}

async fn serve(plan: Plan, report: DriverReport) -> io::Result<()> {
    let Plan {
        index,
        config,
        state,
        credentials,
        telemetry,
        listeners,
        shards,
        inbox,
        questions,
        heartbeat,
        open,
        asker,
        certificates,
        descriptors,
    } = plan;
    telemetry.counters().set_driver(driver_info(&report));
    let telemetry = Rc::new(telemetry);
    let parts = config.shards.count as u64;
    let balance = Balance::new(index, shards);
    let kinds = listeners.iter().map(|planned| Kind::new(&config, planned));
    let shard = Rc::new(Shard {
        pool: Pool::default(),
        table: Rc::default(),
        admission: Admission::new(
            (config.limits.unauthenticated_max(descriptors) / parts).max(1),
            config.limits.unauthenticated_per_source,
        ),
        changed: Pulse::default(),
        open: Signal::default(),
        demand: Demand::new(asker),
        drain: Signal::default(),
        force: Signal::default(),
        broken: Signal::default(),
        hbone: tunnel_settings::new(&config, &telemetry),
        hostnames: Hostnames::new(index, questions),
        slots: Slots::new(
            (config.limits.connections_max(descriptors) / parts).max(1),
            Arc::clone(balance.own()),
        ),
        balance,
        kinds: kinds.collect(),
        state: state.reader(),
        credentials: credentials.reader(),
        certificates,
        tasks: Cell::new(0),
        idle: Pulse::default(),
        random: RefCell::new(fastrand::Rng::new()),
        warned_source: Cell::new(false),
        config,
        telemetry,
    });
    tracing::debug!(target: "corelane::shard", index, driver = %report.kind, "shard started");
    shard.begin(open, listeners)?;
    let receiver = Rc::clone(&shard);
    let messages = inbox.run(move |message| receiver.handle(message, &heartbeat));
    let end = rt::race(shard.broken.wait(), shard.drained());
    match rt::race(messages, end).await {
        First::Left(ended) => ended,
        First::Right(First::Left(what)) => Err(io::Error::other(format!("{what} panicked"))),
        First::Right(First::Right(())) => {
            // Operations dropped above are cancelled by the driver's next turns; the descriptors
            // close with them.
            for _ in 0..3 {
                rt::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        }
    }
}

impl Shard {
    /// Starts what runs as long as the shard. `open`: connections are accepted at once.
    fn begin(self: &Rc<Self>, open: bool, listeners: Vec<PlannedListener>) -> io::Result<()> {
        if open {
            self.open.fire(());
        }
        for (position, planned) in listeners.into_iter().enumerate() {
            listener::start(self, position, planned)?;
        }
        self.spawn_vital(recheck::run(Rc::clone(self)), "the policy recheck");
        Ok(())
    }

    /// The newest mesh state.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.state.current()
    }

    /// Credentials of a local identity, waiting a moment for ones that are being fetched.
    pub(crate) async fn credentials(
        &self,
        identity: &Identity,
    ) -> Result<Arc<Credentials>, CloseReason> {
        let look = || self.credentials.current().get(identity).cloned();
        let settled = async {
            let mut asked = false;
            loop {
                let changed = self.changed.next();
                let waits = match look() {
                    // With somebody to ask, what is not there is not there yet.
                    Err(IdentityError::Unknown(_)) => self.certificates.is_some(),
                    Err(IdentityError::Initializing(_)) => true,
                    settled => return settled,
                };
                if let Some(certificates) = &self.certificates
                    && !asked
                {
                    asked = certificates.asks(identity);
                }
                if !waits {
                    return look();
                }
                changed.await;
            }
        };
        let found = match rt::within(self.config.timeouts.workload_wait, settled).await {
            Some(settled) => settled,
            None => look(),
        };
        found.map_err(|error| CloseReason::Identity(error.to_string()))
    }

    /// A random number below `bound`.
    pub(crate) fn random(&self, bound: u64) -> u64 {
        self.random.borrow_mut().u64(0..bound.max(1))
    }

    /// 64 random bits.
    pub(crate) fn random_bits(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// Room for one more connection of a listener, or for one more stream (no direction: only tunnels
    /// have sockets there). `None` is counted: the limit is reached.
    pub(crate) fn slot(self: &Rc<Self>, direction: Option<Direction>) -> Option<Slot> {
        let slot = Slot::take(self, direction);
        if slot.is_none() {
            let counters = self.telemetry.counters();
            counters.limit(Limit::Connections).add(1);
        }
        slot
    }

    pub(super) const fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Starts a task that the shard waits for before it ends.
    pub(crate) fn spawn(
        self: &Rc<Self>,
        task: impl Future<Output = ()> + 'static,
        on_panic: impl Fn() + 'static,
    ) {
        rt::spawn(Counted::new(self, task, on_panic));
    }

    /// Starts the task that sets a connection up; it ends when the connection is relayed, or the tunnel
    /// has ended. When the shard must end first, or the task panics, it is dropped and `lost` runs.
    pub(crate) fn spawn_set_up(
        self: &Rc<Self>,
        set_up: Pin<Box<dyn Future<Output = ()>>>,
        lost: impl Fn() + Clone + 'static,
    ) {
        let (shard, forced) = (Rc::clone(self), lost.clone());
        let task = async move {
            if let First::Left(()) = rt::race(shard.force.wait(), set_up).await {
                forced();
            }
        };
        self.spawn(task, lost);
    }

    /// As [`Shard::spawn`], for a task whose loss the shard could not make good: a listener that
    /// nobody accepts from, policies that nobody enforces. Its panic ends the shard, loudly.
    pub(crate) fn spawn_vital(
        self: &Rc<Self>,
        task: impl Future<Output = ()> + 'static,
        what: &'static str,
    ) {
        let shard = Rc::clone(self);
        self.spawn(task, move || shard.broken.fire(what));
    }

    /// Completes when the shard drains and no task is left.
    async fn drained(&self) {
        self.drain.wait().await;
        loop {
            let idle = self.idle.next();
            if self.tasks.get() == 0 && !self.balance.own().is_coming() {
                return;
            }
            idle.await;
        }
    }

    /// Completes when the shard drains and only the caller's task is left.
    pub(crate) async fn only_recheck_left(&self) {
        self.drain.wait().await;
        loop {
            let ended = self.idle.next();
            if self.tasks.get() <= 1 && !self.balance.own().is_coming() {
                return;
            }
            ended.await;
        }
    }

    fn handle(self: &Rc<Self>, message: Message, heartbeat: &AtomicU64) -> bool {
        match message {
            Message::Changed => self.changed.beat(),
            Message::Open => self.open.fire(()),
            Message::Told(key, answered) => self.demand.told(&key, answered),
            Message::Drain => self.begin_drain(),
            Message::Force => {
                self.begin_drain();
                self.force.fire(());
            }
            Message::Ping(number) => {
                heartbeat.store(number, Ordering::Relaxed);
                self.telemetry.counters().heartbeat.add(1);
            }
            Message::Resolved(ticket, answer) => self.hostnames.answered(ticket, answer),
            Message::Adopt(handed) => {
                listener::adopt(self, handed);
                self.idle.beat();
            }
        }
        true
    }

    fn begin_drain(&self) {
        self.balance.own().drain();
        self.drain.fire(());
        self.idle.beat();
    }

    /// What the listener at this position is for.
    pub(crate) fn kind(&self, listener: usize) -> Option<&Kind> {
        self.kinds.get(listener)
    }

    /// Says once that the client's address cannot be used as source.
    pub(crate) fn warn_source(&self, error: &io::Error) {
        if !self.warned_source.replace(true) {
            tracing::warn!(
                target: "corelane::dial", %error,
                "cannot dial from the client's address; applications see the node's address. \
                 Grant CAP_NET_RAW or set ENABLE_ORIG_SRC=false"
            );
        }
    }

    /// Logs a connection that was refused before its context was complete.
    pub(crate) fn refused(
        &self,
        direction: Direction,
        client: SocketAddr,
        to: Option<SocketAddr>,
        error: &dyn std::fmt::Display,
    ) {
        self.telemetry.refused(direction, client, to, error);
    }

    /// Key of the workload that listens on `addr`.
    pub(crate) fn local_key(&self, addr: SocketAddr) -> LocalKey {
        LocalKey::of_listener(&self.config.mode, addr.ip())
    }
}
