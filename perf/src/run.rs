//! Does the work: a lab for each peer, all of them standing at once, and in each round all peers in
//! turn, so that whatever else the machine does meets all of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::peers::{Kind, Peer, Programs, Running, Shape};
use crate::profile::{Profile, Profiler};
use crate::results::{FORMAT, Plan, Results, Sample, Series};
use crate::stop::Stop;
use crate::targets;
use crate::work::{Amount, Condition, Held, Work};
use crate::{cipher, lab};

/// What to measure.
#[derive(Debug)]
pub struct Order {
    /// `smoke`, `short`, `full` or a caller's own word.
    pub form: String,
    /// Whom, in order; see [`Order::wants`] for who does what.
    pub peers: Vec<Peer>,
    /// Which work, in order.
    pub works: Vec<Work>,
    /// Which peers do which work, besides what [`Work::is_for`] says.
    pub chooses: fn(Work, &Peer) -> bool,
    /// How much.
    pub amount: Amount,
    /// Data-plane threads of each node.
    pub shards: usize,
    /// Whether access logs are written.
    pub access_log: bool,
    /// Programs found.
    pub programs: Programs,
    /// Tells where the CPU time goes, in one more round of everything.
    pub profiler: Option<Profiler>,
}

/// Measures all of it and judges the result. Lines about the progress go to standard error.
///
/// # Errors
/// If the run is interrupted or the machine cannot carry a lab; what goes wrong with one peer stands
/// in the results.
pub fn run(order: &Order, machine: Machine, stop: &Stop) -> Result<Results> {
    let started = Instant::now();
    let dir = lab::scratch()?;
    let mut skipped = Vec::new();
    let peers = keep_programs(&order.peers, dir.path())?;
    let mut present = Vec::new();
    for peer in &peers {
        match peer.missing(&order.programs) {
            None => present.push(peer),
            Some(how) => {
                eprintln!("skipped: {}: {how}", peer.name);
                skipped.push((peer.name.clone(), how));
            }
        }
    }
    let mut labs = Labs {
        order,
        dir: dir.path(),
        stop,
        standing: HashMap::new(),
    };
    let mut results = Results {
        format: FORMAT,
        machine,
        plan: Plan {
            form: order.form.clone(),
            rounds: order.amount.rounds,
            seconds: order.amount.seconds,
            shards: order.shards,
            access_log: order.access_log,
            took: 0.0,
        },
        series: Vec::new(),
        cipher: Vec::new(),
        skipped,
        targets: Vec::new(),
        profiles: Vec::new(),
    };
    for work in &order.works {
        let does = |peer: &&Peer| work.is_for(peer) && (order.chooses)(*work, peer);
        let peers: Vec<&Peer> = present.iter().copied().filter(does).collect();
        eprintln!(
            "[{:4.0} s] {}: {}",
            started.elapsed().as_secs_f64(),
            work.name(),
            work.what()
        );
        labs.work(*work, &peers, &mut results)?;
    }
    drop(labs);
    results.plan.took = started.elapsed().as_secs_f64();
    results.targets = targets::judge(&results);
    Ok(results)
}

/// Copies of the measured programs, so that a build meanwhile changes nothing.
fn keep_programs(peers: &[Peer], dir: &Path) -> Result<Vec<Peer>> {
    let mut kept: HashMap<PathBuf, PathBuf> = HashMap::new();
    let mut peers = peers.to_vec();
    for peer in &mut peers {
        let Kind::Corelane(corelane) = &mut peer.kind else {
            continue;
        };
        if !kept.contains_key(&corelane.binary) && corelane.binary.is_file() {
            let copy = dir.join(format!("corelane-{}", kept.len()));
            let copied = std::fs::copy(&corelane.binary, &copy);
            copied.map_err(Error::io(corelane.binary.display().to_string()))?;
            kept.insert(corelane.binary.clone(), copy);
        }
        if let Some(copy) = kept.get(&corelane.binary) {
            corelane.binary.clone_from(copy);
        }
    }
    Ok(peers)
}

struct Labs<'a> {
    order: &'a Order,
    dir: &'a Path,
    stop: &'a Stop,
    /// One for each peer, or why there is none.
    standing: HashMap<String, std::result::Result<Running, String>>,
}

/// A peer under a condition, and what it did.
struct Subject<'a> {
    peer: &'a Peer,
    condition: Condition,
    /// A lab of its own, with what it holds.
    own: Option<(Held, Running)>,
    series: Series,
}

impl Labs<'_> {
    fn work(&mut self, work: Work, peers: &[&Peer], results: &mut Results) -> Result<()> {
        let mut subjects = self.subjects(work, peers)?;
        for round in 0..self.order.amount.rounds {
            if work.is_bulk() && !subjects.is_empty() {
                results.cipher.push(cipher::measure()?);
            }
            let mut turns: Vec<usize> = (0..subjects.len()).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for turn in turns {
                self.stop.check()?;
                let sample = self.sample(work, &subjects[turn]);
                record(&mut subjects[turn].series, sample)?;
            }
        }
        if let Some(profiler) = &self.order.profiler
            && work != Work::IdleMemory
        {
            for subject in &mut subjects {
                let profile = self.profile(profiler, work, subject);
                results.profiles.extend(kept(&mut subject.series, profile)?);
            }
        }
        results
            .series
            .extend(subjects.into_iter().map(|s| s.series));
        Ok(())
    }

    /// One more round, watched; nothing for peers without tunnel processes.
    fn profile(
        &mut self,
        profiler: &Profiler,
        work: Work,
        subject: &Subject<'_>,
    ) -> Result<Option<Profile>> {
        if matches!(subject.peer.kind, Kind::Direct) {
            return Ok(None);
        }
        let (amount, stop) = (self.order.amount, self.stop);
        let label = subject.series.label();
        self.on_lab(work, subject, |running| {
            let act = || work.sample(running, &amount, stop);
            let functions = profiler.watch(running, amount.seconds, stop, act)?;
            Ok(Some(Profile::new(work.name(), label, &functions)))
        })
    }

    fn subjects<'p>(&mut self, work: Work, peers: &[&'p Peer]) -> Result<Vec<Subject<'p>>> {
        let mut subjects = Vec::new();
        for peer in peers {
            for condition in work.conditions(&self.order.amount) {
                let mut series = Series {
                    work: work.name().into(),
                    unit: work.unit().into(),
                    peer: peer.name.clone(),
                    condition: condition.to_string(),
                    samples: Vec::new(),
                    errors: Vec::new(),
                };
                let own = if work.own_lab() {
                    match self.own_lab(work, peer, condition) {
                        Ok(own) => Some(own),
                        Err(Error::Interrupted) => return Err(Error::Interrupted),
                        Err(error) => {
                            series.errors.push(complain(peer, &error));
                            None
                        }
                    }
                } else {
                    None
                };
                subjects.push(Subject {
                    peer,
                    condition,
                    own,
                    series,
                });
            }
        }
        Ok(subjects)
    }

    fn start(&self, peer: &Peer, pooled: bool) -> Result<Running> {
        let shape = Shape {
            shards: self.order.shards,
            access_log: self.order.access_log,
            pooled,
        };
        Running::start(peer, &shape, &self.order.programs, self.dir, self.stop)
    }

    fn own_lab(&self, work: Work, peer: &Peer, condition: Condition) -> Result<(Held, Running)> {
        let running = self.start(peer, work.pooled())?;
        let held = Work::enter(condition, &running, self.stop)?;
        Ok((held, running))
    }

    fn sample(&mut self, work: Work, subject: &Subject<'_>) -> Result<Sample> {
        let (amount, stop) = (self.order.amount, self.stop);
        self.on_lab(work, subject, |running| work.sample(running, &amount, stop))
    }

    /// Acts on the peer's lab while it is in the subject's condition.
    fn on_lab<T>(
        &mut self,
        work: Work,
        subject: &Subject<'_>,
        act: impl FnOnce(&Running) -> Result<T>,
    ) -> Result<T> {
        if work.own_lab() {
            let Some((_, running)) = &subject.own else {
                return Err(Error::Usage("no lab".into()));
            };
            return act(running);
        }
        if work == Work::IdleMemory {
            return act(&self.start(subject.peer, true)?);
        }
        let name = &subject.peer.name;
        if !self.standing.contains_key(name) {
            let started = match self.start(subject.peer, true) {
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                other => other.map_err(|e| e.to_string()),
            };
            self.standing.insert(name.clone(), started);
        }
        match &self.standing[name] {
            Err(why) => Err(Error::NotStarted {
                peer: name.clone(),
                why: why.clone(),
            }),
            Ok(running) => {
                let held = Work::enter(subject.condition, running, self.stop)?;
                let done = act(running);
                drop(held);
                done
            }
        }
    }
}

/// The profile, if there is one; only an interruption ends the run.
fn kept(series: &mut Series, profile: Result<Option<Profile>>) -> Result<Option<Profile>> {
    match profile {
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Ok(profile) => Ok(profile),
        Err(error) => {
            let text = format!("profile: {error}");
            eprintln!("failed: {} {}: {text}", series.work, series.label());
            series.errors.push(text);
            Ok(None)
        }
    }
}

/// Only an interruption ends the run.
fn record(series: &mut Series, sample: Result<Sample>) -> Result<()> {
    match sample {
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Ok(sample) => {
            series.samples.push(Some(sample));
            Ok(())
        }
        Err(error) => {
            series.samples.push(None);
            let text = error.to_string();
            eprintln!("failed: {} {}: {text}", series.work, series.label());
            series.errors.push(text);
            Ok(())
        }
    }
}

fn complain(peer: &Peer, error: &Error) -> String {
    let text = error.to_string();
    eprintln!("failed: {}: {text}", peer.name);
    text
}
