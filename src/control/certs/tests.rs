//! The renewal over a provider that does what the test says.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use super::*;
use crate::snapshot::exchange::Subscription;
use crate::tls::credentials::CredentialState;
use crate::tls::dev_pki::{Authority, Leaf};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn identity(name: &str) -> Identity {
    Identity::new("cluster.local", "default", name)
}

/// Answers from a table; an identity without an entry waits for one.
struct Script {
    answers: RefCell<BTreeMap<Identity, Result<Material, &'static str>>>,
    answered: Notify,
    fetches: Cell<usize>,
    forgotten: RefCell<Vec<Identity>>,
    changes: RefCell<mpsc::UnboundedReceiver<Identity>>,
}

impl Provider for Script {
    fn fetch<'a>(&'a self, identity: &'a Identity, _: Option<Arc<Credentials>>) -> Fetch<'a> {
        self.fetches.set(self.fetches.get() + 1);
        Box::pin(async move {
            loop {
                let answer = self.answers.borrow().get(identity).cloned();
                match answer {
                    Some(Ok(material)) => {
                        let warnings = Vec::new();
                        return Ok(Fetched { material, warnings });
                    }
                    Some(Err(path)) => {
                        let path = path.to_owned();
                        return Err(FetchError::Files(files::FilesError::Kind { path }));
                    }
                    None => self.answered.notified().await,
                }
            }
        })
    }

    fn changes(&self) -> Changes<'_> {
        Box::pin(poll_fn(|cx| {
            match self.changes.borrow_mut().poll_recv(cx) {
                Poll::Ready(Some(identity)) => Poll::Ready(vec![identity]),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            }
        }))
    }

    fn fetch_again_after(&self, credentials: &Credentials, now: SystemTime) -> Duration {
        half_life_delay(credentials.not_before(), credentials.not_after(), now)
    }

    fn forget(&self, identity: &Identity) {
        self.forgotten.borrow_mut().push(identity.clone());
    }
}

/// A renewal with everything around it.
struct World {
    authority: Authority,
    script: Rc<Script>,
    changed: mpsc::UnboundedSender<Identity>,
    published: mpsc::UnboundedReceiver<()>,
    store: Subscription<CredentialStore>,
    clock: Rc<Cell<SystemTime>>,
}

impl World {
    fn new() -> (Self, Renewal) {
        let now = SystemTime::now();
        let (changed, changes) = mpsc::unbounded_channel();
        let script = Rc::new(Script {
            answers: RefCell::default(),
            answered: Notify::new(),
            fetches: Cell::new(0),
            forgotten: RefCell::default(),
            changes: RefCell::new(changes),
        });
        let publisher = Publisher::new(Arc::new(CredentialStore::default()));
        let store = publisher.subscribe();
        let clock = Rc::new(Cell::new(now));
        let (told, published) = mpsc::unbounded_channel();
        let reads = Rc::clone(&clock);
        let renewal = Renewal::new(
            Rc::<Script>::clone(&script),
            publisher,
            TlsOptions::default(),
            move || reads.get(),
            move || told.send(()).unwrap_or_default(),
        );
        let authority = Authority::new("root", now).unwrap();
        let world = Self {
            authority,
            script,
            changed,
            published,
            store,
            clock,
        };
        (world, renewal)
    }

    fn answer(&self, name: &str, answer: Result<Material, &'static str>) {
        self.script
            .answers
            .borrow_mut()
            .insert(identity(name), answer);
        self.script.answered.notify_waiters();
    }

    fn material(&self, name: &str) -> Material {
        let leaf = Leaf::new(&identity(name), self.clock.get());
        self.authority.issue(&leaf).unwrap().material()
    }

    fn state(&self, name: &str) -> Option<CredentialState> {
        let store = self.store.load();
        let found = store.entries().find(|(whose, _)| **whose == identity(name));
        found.map(|(_, state)| state.clone())
    }

    /// What is available for `name`.
    fn held(&self, name: &str) -> Arc<Credentials> {
        match self.state(name) {
            Some(CredentialState::Available(credentials)) => credentials,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Announces a change and waits for what comes of it.
    async fn change(&mut self, name: &str) {
        self.changed.send(identity(name)).unwrap();
        self.published.recv().await.unwrap();
    }
}

fn needing(names: &[&str]) -> Arc<BTreeSet<Identity>> {
    Arc::new(names.iter().map(|name| identity(name)).collect())
}

/// Runs `story` beside a running renewal.
fn with_renewal<F: Future<Output = ()>>(
    world: World,
    renewal: Renewal,
    needed: &[&str],
    story: impl FnOnce(World, watch::Sender<Arc<BTreeSet<Identity>>>) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let (sender, receiver) = watch::channel(needing(needed));
    LocalSet::new().block_on(&runtime, async {
        let running = tokio::task::spawn_local(renewal.run(receiver, mpsc::channel(1).1));
        story(world, sender).await;
        // The story drops the sender, which ends the renewal.
        running.await.unwrap();
    });
}

#[test]
fn a_needed_identity_is_announced_as_coming_and_then_available() {
    let (world, renewal) = World::new();
    with_renewal(world, renewal, &["a"], |mut world, needed| async move {
        world.published.recv().await.unwrap();
        assert!(matches!(
            world.state("a"),
            Some(CredentialState::Initializing)
        ));
        world.answer("a", Ok(world.material("a")));
        world.published.recv().await.unwrap();
        assert_eq!(**world.held("a").identity(), identity("a"));
        needed.send(needing(&["a", "b"])).unwrap();
        world.published.recv().await.unwrap();
        assert!(matches!(
            world.state("b"),
            Some(CredentialState::Initializing)
        ));
        drop(needed);
    });
}

#[test]
fn a_failed_fetch_is_told_and_mended_by_a_change() {
    let (world, renewal) = World::new();
    world.answer("a", Err("/ids/tls.crt"));
    with_renewal(world, renewal, &["a"], |mut world, needed| async move {
        world.published.recv().await.unwrap();
        world.published.recv().await.unwrap();
        let Some(CredentialState::Unavailable(why)) = world.state("a") else {
            panic!("{:?}", world.state("a"));
        };
        assert_eq!(why, "/ids/tls.crt: not a regular file");
        world.answer("a", Ok(world.material("a")));
        world.change("a").await;
        world.held("a");
        drop(needed);
    });
}

#[test]
fn a_reload_that_fails_keeps_the_last_good_certificate() {
    let (world, renewal) = World::new();
    world.answer("a", Ok(world.material("a")));
    with_renewal(world, renewal, &["a"], |mut world, needed| async move {
        world.published.recv().await.unwrap();
        world.published.recv().await.unwrap();
        let good = world.held("a");
        // Gone, for someone else, key of another certificate, out of its time.
        let now = world.clock.get();
        let mut torn = world.material("a");
        torn.key = world.material("a").key;
        let expired = Leaf::new(&identity("a"), now).valid(now - 2 * DAY, now - DAY);
        let expired = world.authority.issue(&expired).unwrap().material();
        for bad in [Err("/ids"), Ok(world.material("b")), Ok(torn), Ok(expired)] {
            world.answer("a", bad);
            world.change("a").await;
            assert!(Arc::ptr_eq(&world.held("a"), &good));
        }
        world.answer("a", Ok(world.material("a")));
        world.change("a").await;
        assert!(!Arc::ptr_eq(&world.held("a"), &good));
        drop(needed);
    });
}

#[test]
fn an_expired_certificate_is_better_than_none() {
    let (world, renewal) = World::new();
    let now = world.clock.get();
    let expired = Leaf::new(&identity("a"), now).valid(now - 2 * DAY, now - DAY);
    world.answer("a", Ok(world.authority.issue(&expired).unwrap().material()));
    with_renewal(world, renewal, &["a"], |mut world, needed| async move {
        world.published.recv().await.unwrap();
        world.published.recv().await.unwrap();
        assert!(world.held("a").seconds_left(now) < 0);
        drop(needed);
    });
}

#[test]
fn an_identity_no_longer_needed_is_forgotten() {
    let (world, renewal) = World::new();
    world.answer("a", Ok(world.material("a")));
    with_renewal(world, renewal, &["a"], |mut world, needed| async move {
        world.published.recv().await.unwrap();
        world.published.recv().await.unwrap();
        needed.send(needing(&[])).unwrap();
        world.published.recv().await.unwrap();
        assert!(world.state("a").is_none());
        assert_eq!(*world.script.forgotten.borrow(), [identity("a")]);
        drop(needed);
    });
}

#[test]
fn unchanged_material_is_not_published_again() {
    let (world, mut renewal) = World::new();
    renewal.need(&needing(&["a"]));
    let fetched = |material: &Material| {
        Ok(Fetched {
            material: material.clone(),
            warnings: Vec::new(),
        })
    };
    let material = world.material("a");
    renewal.take(&identity("a"), fetched(&material));
    let first = world.held("a");
    renewal.take(&identity("a"), fetched(&material));
    assert!(Arc::ptr_eq(&world.held("a"), &first));
    let mut published = world.published;
    let mut count = 0;
    while published.try_recv().is_ok() {
        count += 1;
    }
    assert_eq!(count, 2, "coming and available");
}

#[test]
fn fetches_are_bounded_and_never_doubled() {
    let (world, mut renewal) = World::new();
    let names: Vec<String> = (0..20).map(|n| format!("w{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    renewal.need(&needing(&names));
    renewal.start_fetches();
    assert_eq!(renewal.running.len(), FETCHES_MAX);
    let now = world.clock.get();
    renewal
        .queue
        .push(&identity("w00"), Priority::Background, now);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(poll_any(&mut renewal.running, &mut cx).is_pending());
    assert_eq!(world.script.fetches.get(), FETCHES_MAX);
    // The change during its fetch makes one more fetch afterwards.
    drop(renewal.running.remove(0));
    renewal.take(&identity("w00"), Err(files::FilesError::Ending.into()));
    renewal.start_fetches();
    assert_eq!(renewal.running.len(), FETCHES_MAX);
    assert!(renewal.queue.contains(&identity("w00")));
}

#[test]
fn a_failure_is_tried_again_after_a_pause_and_a_success_at_half_of_its_life() {
    let (world, mut renewal) = World::new();
    renewal.need(&needing(&["a"]));
    renewal.start_fetches();
    renewal.running.clear();
    renewal.take(&identity("a"), Err(files::FilesError::Ending.into()));
    assert!(renewal.tend() <= Duration::from_millis(1200));
    assert_eq!(renewal.running.len(), 0);
    world
        .clock
        .set(world.clock.get() + Duration::from_millis(1200));
    renewal.tend();
    assert_eq!(renewal.running.len(), 1);
    renewal.running.clear();
    let material = world.material("a");
    renewal.take(
        &identity("a"),
        Ok(Fetched {
            material,
            warnings: Vec::new(),
        }),
    );
    assert_eq!(renewal.tend(), NAP_MAX);
    world.clock.set(world.clock.get() + 16 * DAY);
    renewal.tend();
    assert_eq!(renewal.running.len(), 1);
}
