//! One shard: a thread on one core with its own ring, listeners, tunnels, table and counters.
//!
//! [`Plan`] comes from the control thread, [`run`] turns it into a running shard and returns when
//! the shard has drained. Messages arrive by the mailbox.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::admission::{Admission, Slots};
use super::balance::Balance;
use super::demand::Demand;
use super::hostnames::Hostnames;
use super::listener::{self, Kind};
use super::local::{LocalKey, Processes};
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

pub use place::PlaceId;
pub(crate) use place::{ListenerId, Place};
pub use plan::{
    CertificateAsker, ListenerRole, Message, OpenReport, Plan, PlannedListener, PlannedWorkload,
    Presence, ShardMailbox,
};

mod place;
mod plan;
mod tasks;

/// The running shard as the tasks of one place see it: its own listeners and tunnels, and with what
/// all places have in common ([`Core`]).
#[derive(Debug)]
pub(crate) struct Shard {
    core: Rc<Core>,
    /// Where its sockets live, and for whom.
    pub(crate) place: Place,
    pub(crate) pool: Pool,
    /// Accept.
    pub(crate) open: Signal<()>,
    /// Stop accepting.
    pub(crate) drain: Signal<()>,
    /// End everything.
    pub(crate) force: Signal<()>,
    /// What its listeners are for, by position.
    kinds: Vec<Kind>,
}

impl Deref for Shard {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

/// What all places of a shard have in common.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) telemetry: Rc<ShardTelemetry>,
    pub(crate) table: Rc<Table>,
    pub(crate) admission: Rc<Admission>,
    /// Beats when state or credentials change.
    pub(crate) changed: Pulse,
    /// Look-ups that wait for the control plane.
    pub(crate) demand: Demand,
    /// A task without which the shard must not go on has panicked; its name.
    broken: Signal<&'static str>,
    pub(crate) hbone: hbone::Settings,
    pub(crate) hostnames: Hostnames,
    /// Where the process of a client tells its workload.
    pub(crate) processes: Option<Processes>,
    slots: Slots,
    pub(super) balance: Balance,
    /// Tunnels of all places.
    tunnels: Rc<Cell<usize>>,
    /// The workloads the node's agent named.
    places: RefCell<BTreeMap<PlaceId, Rc<Shard>>>,
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
        processes,
        descriptors,
    } = plan;
    telemetry.counters().set_driver(driver_info(&report));
    let telemetry = Rc::new(telemetry);
    let parts = config.shards.count as u64;
    let balance = Balance::new(index, shards);
    let core = Core {
        table: Rc::default(),
        admission: Admission::new(
            (config.limits.unauthenticated_max(descriptors) / parts).max(1),
            config.limits.unauthenticated_per_source,
        ),
        changed: Pulse::default(),
        demand: Demand::new(asker),
        broken: Signal::default(),
        hbone: tunnel_settings::new(&config, &telemetry),
        hostnames: Hostnames::new(index, questions),
        processes,
        slots: Slots::new(
            (config.limits.connections_max(descriptors) / parts).max(1),
            Arc::clone(balance.own()),
        ),
        balance,
        tunnels: Rc::default(),
        places: RefCell::default(),
        state: state.reader(),
        credentials: credentials.reader(),
        certificates,
        tasks: Cell::new(0),
        idle: Pulse::default(),
        random: RefCell::new(fastrand::Rng::new()),
        warned_source: Cell::new(false),
        config,
        telemetry,
    };
    let shard = Shard::new(Rc::new(core), Place::default(), &listeners);
    tracing::debug!(target: "corelane::shard", index, driver = %report.kind, "shard started");
    shard.begin(open, listeners)?;
    let receiver = Rc::clone(&shard);
    let messages = inbox.run(move |message| receiver.handle(message, &heartbeat));
    let end = rt::race(shard.broken.wait(), shard.drained());
    match rt::race(messages, end).await {
        First::Left(ended) => ended,
        First::Right(First::Left(what)) => Err(io::Error::other(format!("{what} panicked"))),
        First::Right(First::Right(())) => {
            shard.places.borrow_mut().clear();
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
    fn new(core: Rc<Core>, place: Place, listeners: &[PlannedListener]) -> Rc<Self> {
        let kind = |planned: &PlannedListener| {
            let local = place.local_key(&core.config.mode, planned.addr.ip());
            Kind::new(local, planned)
        };
        Rc::new(Self {
            kinds: listeners.iter().map(kind).collect(),
            pool: Pool::new(Rc::clone(&core.tunnels)),
            open: Signal::default(),
            drain: Signal::default(),
            force: Signal::default(),
            place,
            core,
        })
    }

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

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
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
                self.each_place(|place| place.force.fire(()));
            }
            Message::AddWorkload(planned) => self.add_workload(*planned),
            Message::ServeWorkload(id) => {
                if let Some(place) = self.places.borrow().get(&id) {
                    place.open.fire(());
                }
            }
            Message::RemoveWorkload(id) => self.remove_workload(id),
            Message::Ping(number) => {
                heartbeat.store(number, Ordering::Relaxed);
                self.telemetry.counters().heartbeat.add(1);
            }
            Message::Resolved(ticket, answer) => self.hostnames.answered(ticket, answer),
            Message::ListOpen(report) => report.answer(&self.telemetry),
            Message::Adopt(handed) => {
                self.adopt(handed);
                self.idle.beat();
            }
        }
        true
    }

    fn begin_drain(&self) {
        self.balance.own().drain();
        self.drain.fire(());
        self.each_place(|place| place.drain.fire(()));
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

    /// Key of the workload that connections to `addr` are for.
    pub(crate) fn local_key(&self, addr: SocketAddr) -> LocalKey {
        self.place.destination_key(&self.config.mode, addr)
    }
}
