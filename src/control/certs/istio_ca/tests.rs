//! The authority's client and the renewal over it, against an authority that does what the test says.
//! Time is paused where nothing but timers is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::testing::{Act, Fake, InProcess, Service};
use super::*;
use crate::config::server::{Header, RootSource, Secret, ServerAddress};
use crate::control::certs::Renewal;
use crate::control::certs::entry::Entry;
use crate::control::certs::queue::Priority;
use crate::control::grpc::headers::Token;
use crate::control::grpc::testing::{issue_for_hosts, serve, tls};
use crate::proto::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use crate::snapshot::exchange::{Publisher, Subscription};
use crate::tls::TlsOptions;
use crate::tls::credentials::{CredentialState, CredentialStore};

type Needed = Arc<BTreeSet<Identity>>;

const SHARED: Terms = Terms {
    lifetime: Duration::from_hours(24),
    impersonates: true,
    renew_with_certificate: false,
};

fn identity(name: &str) -> Identity {
    Identity::new("cluster.local", "default", name)
}

fn needing(names: &[&str]) -> Needed {
    Arc::new(names.iter().map(|name| identity(name)).collect())
}

fn headers(token: Token) -> Headers {
    Headers {
        token,
        cluster_id: "Kubernetes".into(),
        extra: vec![Header {
            name: "header_baz".into(),
            value: Secret::new("baz"),
        }],
    }
}

fn literal(text: &str) -> Token {
    Token::Literal(Secret::new(text))
}

/// A renewal over a fake authority.
struct World {
    fake: Arc<Fake>,
    store: Subscription<CredentialStore>,
    published: mpsc::UnboundedReceiver<()>,
    needed: watch::Sender<Needed>,
    urgent: mpsc::Sender<Identity>,
}

struct Parts {
    renewal: Renewal,
    needed: watch::Receiver<Needed>,
    urgent: mpsc::Receiver<Identity>,
}

impl World {
    fn new(names: &[&str]) -> (Self, Parts) {
        let fake = Fake::new();
        let reach = Rc::new(InProcess::new(&fake));
        let ca = IstioCa::new(reach, headers(Token::None), SHARED);
        let publisher = Publisher::new(Arc::new(CredentialStore::default()));
        let store = publisher.subscribe();
        let (told, published) = mpsc::unbounded_channel();
        let clock = Arc::clone(&fake);
        let renewal = Renewal::new(
            Rc::new(ca),
            publisher,
            TlsOptions::default(),
            move || clock.now(),
            move || told.send(()).unwrap_or_default(),
        );
        let (needed, needed_rx) = watch::channel(needing(names));
        let (urgent, urgent_rx) = mpsc::channel(1_000);
        let world = Self {
            fake,
            store,
            published,
            needed,
            urgent,
        };
        let parts = Parts {
            renewal,
            needed: needed_rx,
            urgent: urgent_rx,
        };
        (world, parts)
    }

    fn states(&self) -> BTreeMap<Identity, CredentialState> {
        let store = self.store.load();
        let entries = store.entries();
        entries
            .map(|(id, state)| (id.clone(), state.clone()))
            .collect()
    }

    fn state(&self, name: &str) -> Option<CredentialState> {
        self.states().remove(&identity(name))
    }

    fn held(&self, name: &str) -> Option<Arc<Credentials>> {
        match self.state(name) {
            Some(CredentialState::Available(held)) => Some(held),
            _ => None,
        }
    }

    fn error(&self, name: &str) -> Option<String> {
        match self.state(name) {
            Some(CredentialState::Unavailable(why)) => Some(why),
            _ => None,
        }
    }

    /// Waits for publications until one shows what is wanted.
    async fn until<T>(&mut self, look: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            self.published.recv().await.unwrap();
        }
    }

    async fn available(&mut self, name: &str) -> Arc<Credentials> {
        self.until(|world| world.held(name)).await
    }
}

/// Runs a story beside a renewal that needs `names` from the start.
async fn play<F: Future<Output = ()>>(names: &[&str], story: impl FnOnce(World) -> F) {
    let (world, parts) = World::new(names);
    play_prepared(world, parts, story).await;
}

async fn play_prepared<F: Future<Output = ()>>(
    world: World,
    parts: Parts,
    story: impl FnOnce(World) -> F,
) {
    let running = parts.renewal.run(parts.needed, parts.urgent);
    LocalSet::new()
        .run_until(async {
            let running = tokio::task::spawn_local(running);
            story(world).await;
            // The story has dropped the sender, which ends the renewal.
            running.await.unwrap();
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_asks_in_its_own_name_for_the_identities_of_its_workloads() {
    play(&["a"], async |mut world| {
        let held = world.available("a").await;
        assert_eq!(**held.identity(), identity("a"));
        let [call] = world.fake.calls().try_into().unwrap();
        assert_eq!(call.identity, identity("a"));
        let spiffe = "spiffe://cluster.local/ns/default/sa/a";
        assert_eq!(call.impersonated.as_deref(), Some(spiffe));
        assert_eq!(call.seconds, 86_400);
        assert_eq!(call.headers.get("clusterid").unwrap(), "Kubernetes");
        assert_eq!(call.headers.get("header_baz").unwrap(), "baz");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dedicated_node_asks_for_itself() {
    let fake = Fake::new();
    let terms = Terms {
        impersonates: false,
        lifetime: Duration::from_mins(10),
        ..SHARED
    };
    let reach = Rc::new(InProcess::new(&fake));
    let ca = IstioCa::new(reach, headers(literal("t")), terms);
    ca.get(&identity("a"), None).await.unwrap();
    let [call] = fake.calls().try_into().unwrap();
    assert_eq!((call.impersonated, call.seconds), (None, 600));
    assert_eq!(call.headers.get("authorization").unwrap(), "Bearer t");
}

#[tokio::test(start_paused = true)]
async fn answers_that_make_no_certificate_are_refused_with_the_reason() {
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let elements = |list: &[&str]| {
        let list = list.iter().map(|text| (*text).to_owned());
        Act::Elements(list.collect())
    };
    let table = [
        (elements(&[]), "chain returned from CA is empty"),
        (elements(&["LEAF"]), "only a leaf and no root"),
        (
            elements(&["garbage", "ROOT"]),
            "element 1 is not a certificate",
        ),
        (
            elements(&["LEAF", broken, "ROOT"]),
            "element 2 is not a certificate",
        ),
        (
            elements(&["LEAF", "garbage"]),
            "the roots returned from CA: contains no certificate",
        ),
        (
            elements(&["LEAF", broken]),
            "the roots returned from CA: not readable as PEM",
        ),
        (
            elements(&["ROOT", "LEAF"]),
            "the chain returned from CA: no URI SAN",
        ),
        (
            Act::Other("b"),
            "did not find expected SAN: spiffe://cluster.local/ns/default/sa/a",
        ),
        (
            Act::OtherKey,
            "private key does not belong to the first certificate",
        ),
        (
            Act::Refuse(Code::Unauthenticated),
            "told to refuse (is the token of AUTH_TOKEN valid",
        ),
        (
            Act::Refuse(Code::PermissionDenied),
            "may this node ask for certificates",
        ),
        (
            Act::Refuse(Code::Unavailable),
            "certificate authority: Unavailable: told to refuse",
        ),
        (Act::Hang, "did not answer within 30s"),
    ];
    for (act, expected) in table {
        play(&[], async |mut world| {
            world.fake.next([act.clone()]);
            world.needed.send(needing(&["a"])).unwrap();
            let why = world.until(|world| world.error("a")).await;
            assert!(why.contains(expected), "{act:?}: {why}");
            // Whatever it was, it is tried again.
            world.available("a").await;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn chain_and_roots_are_told_apart_by_their_place() {
    play(&[], async |mut world| {
        world.fake.next([Act::Deep]);
        world.needed.send(needing(&["a"])).unwrap();
        let held = world.available("a").await;
        assert_eq!(held.chain().count(), 3, "leaf and two intermediates");
        assert_eq!(held.roots().count(), 2);
        assert_eq!(held.warnings(), [""; 0], "peers would accept it");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_of_several_roots_that_cannot_be_used_is_skipped() {
    play(&[], async |mut world| {
        let root = world.fake.authority.root_pem().to_owned();
        // A certificate in PEM whose content is none.
        let junk = crate::tls::pem::encode("CERTIFICATE", b"junk");
        let elements = vec!["LEAF".to_owned(), junk + &root];
        world.fake.next([Act::Elements(elements)]);
        world.needed.send(needing(&["a"])).unwrap();
        let held = world.available("a").await;
        assert!(held.warnings()[0].contains("root 1 is skipped"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_before_half_of_its_life() {
    play(&[], async |mut world| {
        world.fake.usually(Act::Issue(Duration::from_secs(1_000)));
        world.needed.send(needing(&["a"])).unwrap();
        let first = world.available("a").await;
        let issued = Instant::now();
        let newer = |w: &World| w.held("a").filter(|held| !Arc::ptr_eq(held, &first));
        let second = world.until(newer).await;
        let after = issued.elapsed().as_secs_f64();
        assert!((473.0..=501.0).contains(&after), "{after}");
        assert!(second.not_before() > first.not_before());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_out_of_its_time_is_handed_on_and_replaced_soon() {
    for act in [Act::Valid(-200, -100), Act::Valid(100, 200)] {
        play(&[], async |mut world| {
            world.fake.next([act]);
            world.needed.send(needing(&["a"])).unwrap();
            let first = world.available("a").await;
            let received = Instant::now();
            let current = |w: &World| w.held("a").filter(|held| !Arc::ptr_eq(held, &first));
            world.until(current).await;
            assert!(received.elapsed() < Duration::from_secs(2));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_handshake_waits_for_comes_first_and_refreshes_last() {
    let (world, mut parts) = World::new(&["id1", "id2", "id3", "id4"]);
    let renewal = &mut parts.renewal;
    renewal.fetches_max = 1;
    let now = world.fake.now();
    let queue = |name: &str, priority, renewal: &mut Renewal| {
        renewal.entries.insert(identity(name), Entry::default());
        renewal.queue.push(&identity(name), priority, now);
    };
    queue("id1", Priority::Background, renewal);
    queue("id2", Priority::Background, renewal);
    renewal.start_fetches();
    queue("id3", Priority::Warmup, renewal);
    renewal.hasten(&identity("id4"));
    play_prepared(world, parts, async |mut world| {
        world.available("id2").await;
        assert_eq!(world.fake.order(), ["id1", "id4", "id3", "id2"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_already_is_moved_ahead() {
    for (wanted, order) in [
        ("new", ["w1", "new", "w2", "w3", "w4"].as_slice()),
        ("w4", ["w1", "w4", "w2", "w3"].as_slice()),
    ] {
        let (world, mut parts) =
            World::new(&["w1", "w2", "w3", "w4", "new"][..4 + usize::from(wanted == "new")]);
        let renewal = &mut parts.renewal;
        renewal.fetches_max = 1;
        renewal.need(&needing(&["w1", "w2", "w3", "w4"]));
        renewal.start_fetches();
        renewal.hasten(&identity(wanted));
        play_prepared(world, parts, async |mut world| {
            world.available(order[order.len() - 1]).await;
            assert_eq!(world.fake.order(), order);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_for_one_identity_get_the_same_certificate_by_one_call() {
    play(&[], async |mut world| {
        for _ in 0..4 {
            world.urgent.send(identity("a")).await.unwrap();
        }
        // Named as needed while it is fetched, as the node does.
        world.needed.send(needing(&["a"])).unwrap();
        let held = world.available("a").await;
        world.urgent.send(identity("a")).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(world.fake.order(), ["a"]);
        assert!(Arc::ptr_eq(&held, &world.held("a").unwrap()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn calls_for_several_identities_run_at_the_same_time() {
    play(&[], async |mut world| {
        world.fake.usually(Act::Slow(Duration::from_secs(1)));
        let names: Vec<String> = (0..16).map(|n| format!("w{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let started = Instant::now();
        world.needed.send(needing(&names)).unwrap();
        sleep(Duration::from_millis(500)).await;
        assert_eq!(world.fake.calls().len(), 8, "no more than eight");
        world.available("w07").await;
        assert_eq!(started.elapsed().as_secs(), 1);
        world.available("w15").await;
        assert_eq!(started.elapsed().as_secs(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_identity_forgotten_while_it_is_fetched_is_not_kept() {
    play(&["a"], async |mut world| {
        world.fake.next([
            Act::Slow(Duration::from_secs(5)),
            Act::Slow(Duration::from_secs(5)),
        ]);
        sleep(Duration::from_secs(1)).await;
        world.needed.send(needing(&[])).unwrap();
        world.until(|w| w.states().is_empty().then_some(())).await;
        sleep(Duration::from_secs(10)).await;
        assert!(world.states().is_empty());
        // Needed again, it starts over, and so does the time it takes.
        let again = Instant::now();
        world.needed.send(needing(&["a"])).unwrap();
        world.available("a").await;
        assert_eq!(again.elapsed().as_secs(), 5);
        world.needed.send(needing(&[])).unwrap();
        world.until(|w| w.states().is_empty().then_some(())).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_error_stays_until_the_retry_which_nobody_can_hasten() {
    play(&[], async |mut world| {
        world.fake.next([Act::Refuse(Code::Internal)]);
        world.needed.send(needing(&["a"])).unwrap();
        world.until(|world| world.error("a")).await;
        let failed = Instant::now();
        world.urgent.send(identity("a")).await.unwrap();
        sleep(Duration::from_millis(700)).await;
        assert!(world.error("a").is_some(), "not hastened");
        world.available("a").await;
        let after = failed.elapsed().as_secs_f64();
        assert!((0.8..=1.3).contains(&after), "{after}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn failures_of_one_identity_delay_no_other() {
    play(&[], async |mut world| {
        world.fake.next(vec![Act::Refuse(Code::Internal); 4]);
        world.needed.send(needing(&["a"])).unwrap();
        world.until(|world| world.error("a")).await;
        sleep(Duration::from_secs(10)).await;
        let before = Instant::now();
        world.needed.send(needing(&["a", "b"])).unwrap();
        world.available("b").await;
        assert!(before.elapsed() < Duration::from_millis(100));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_keeps_the_certificate_and_tries_again_before_its_end() {
    play(&[], async |mut world| {
        world.fake.next([Act::Issue(Duration::from_secs(1_000))]);
        world.fake.usually(Act::Refuse(Code::Unavailable));
        world.needed.send(needing(&["a"])).unwrap();
        let held = world.available("a").await;
        sleep(Duration::from_secs(990)).await;
        assert!(Arc::ptr_eq(&held, &world.held("a").unwrap()), "kept");
        let tries = world.fake.calls().len();
        assert!((8..=14).contains(&tries), "{tries} with growing pauses");
        // The pauses are at 150 s by now, but the end of the certificate is nearer.
        sleep(Duration::from_secs(11)).await;
        assert!(world.fake.calls().len() > tries);
        assert!(
            Arc::ptr_eq(&held, &world.held("a").unwrap()),
            "peers judge it"
        );
        world.fake.usually(Act::Issue(Duration::from_secs(1_000)));
        world
            .until(|w| w.held("a").filter(|new| !Arc::ptr_eq(new, &held)))
            .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_for_many_identities_get_one_entry_each() {
    play(&[], async |mut world| {
        let names: Vec<String> = (0..100).map(|n| format!("w{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        world.needed.send(needing(&names)).unwrap();
        for _ in 0..8 {
            for name in &names {
                world.urgent.send(identity(name)).await.unwrap();
            }
        }
        let all = |w: &World| {
            let held = names.iter().filter(|name| w.held(name).is_some()).count();
            (held == 100).then_some(())
        };
        world.until(all).await;
        assert_eq!(world.states().len(), 100);
        assert_eq!(world.fake.calls().len(), 100);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_connection_is_shared_and_follows_the_root_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root-cert.pem");
    std::fs::write(&path, "one").unwrap();
    let fake = Fake::new();
    let reach = Rc::new(InProcess::new(&fake));
    let ca = IstioCa::new(Rc::clone(&reach), headers(Token::None), SHARED);
    let (a, b) = (identity("a"), identity("b"));
    let connects = || reach.connects.get();
    let (one, other) = tokio::join!(ca.get(&a, None), ca.get(&b, None));
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(connects(), 1, "fixed roots never change");

    *reach.roots.borrow_mut() = RootSource::File(path.clone());
    ca.get(&a, None).await.unwrap();
    ca.get(&a, None).await.unwrap();
    assert_eq!(connects(), 2, "other roots, one new connection");

    std::fs::write(&path, "two").unwrap();
    reach.unreachable.set(true);
    ca.get(&a, None).await.unwrap();
    assert_eq!(connects(), 3, "the old connection serves once more");
    ca.get(&a, None).await.unwrap();
    assert_eq!(connects(), 4, "and it is tried again");
    reach.unreachable.set(false);
    ca.get(&a, None).await.unwrap();
    ca.get(&a, None).await.unwrap();
    assert_eq!(connects(), 5, "made once");
}

/// An authority on loopback; `clients` asks for certificates of that authority.
async fn on_loopback(fake: &Arc<Fake>, clients: bool) -> Server {
    let issued = issue_for_hosts(&fake.authority, &["localhost"]);
    let tls = tls(&issued, clients.then_some(&fake.authority));
    let service = IstioCertificateServiceServer::new(Service(Arc::clone(fake)));
    let port = serve(Some(tls), service).await.port();
    Server {
        address: ServerAddress::Tls {
            host: "localhost".into(),
            port,
        },
        roots: RootSource::Pem(fake.authority.root_pem().into()),
        alt_hostname: None,
        packet_mark: None,
        tls: TlsOptions::default(),
    }
}

#[tokio::test]
async fn over_the_network_each_request_carries_the_token_as_it_is_then() {
    let fake = Fake::new();
    let server = on_loopback(&fake, false).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let ca = IstioCa::new(server, headers(Token::File(path.clone())), SHARED);
    let missing = ca.get(&identity("a"), None).await.unwrap_err().to_string();
    assert!(missing.contains("token: No such file"), "{missing}");
    for token in ["one", "two"] {
        std::fs::write(&path, token).unwrap();
        ca.get(&identity("a"), None).await.unwrap();
    }
    let tokens: Vec<_> = fake.calls().into_iter().map(|call| call.headers).collect();
    assert_eq!(tokens[0].get("authorization").unwrap(), "Bearer one");
    assert_eq!(tokens[1].get("authorization").unwrap(), "Bearer two");
}

#[tokio::test]
async fn an_authority_that_is_not_believed_is_told_nothing() {
    let (fake, other) = (Fake::new(), Fake::new());
    let mut server = on_loopback(&fake, false).await;
    server.roots = RootSource::Pem(other.authority.root_pem().into());
    let ca = IstioCa::new(server, headers(literal("t")), SHARED);
    let error = ca.get(&identity("a"), None).await.unwrap_err().to_string();
    assert!(
        error.contains("certificate authority not reached: https://localhost:"),
        "{error}"
    );
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn the_certificate_in_use_renews_itself_where_that_is_wanted() {
    let fake = Fake::new();
    let terms = Terms {
        impersonates: false,
        renew_with_certificate: true,
        ..SHARED
    };
    let now = SystemTime::now();
    let held = fake
        .authority
        .credentials(&identity("a"), TlsOptions::default(), now);
    let held = Arc::new(held.unwrap());
    // An authority that takes nobody without a certificate.
    let server = on_loopback(&fake, true).await;
    let ca = IstioCa::new(server, headers(literal("expired")), terms);
    assert!(ca.get(&identity("a"), None).await.is_err());
    ca.get(&identity("a"), Some(Arc::clone(&held)))
        .await
        .unwrap();
    let [call] = fake.calls().try_into().unwrap();
    assert!(call.headers.get("authorization").is_none());

    // One that takes tokens only: the certificate is refused, the token is tried.
    fake.next([Act::Refuse(Code::Unauthenticated)]);
    let server = on_loopback(&fake, false).await;
    let ca = IstioCa::new(server, headers(literal("good")), terms);
    ca.get(&identity("a"), Some(held)).await.unwrap();
    let last = fake.calls().pop().unwrap();
    assert_eq!(last.headers.get("authorization").unwrap(), "Bearer good");
}
