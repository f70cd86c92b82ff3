//! Peers that are revoked, before and while a tunnel with them is open.

use std::time::SystemTime;

use super::node::{DRIVERS, Pair, Plans, exchange, is_reset, until, workload};
use crate::dataplane::shard::Message;
use crate::model::identity::Identity;
use crate::telemetry::counters::Role;
use crate::tls::TlsOptions;
use crate::tls::credentials::{CredentialState, CredentialStore, Credentials};
use crate::tls::dev_pki::{Authority, Issued, Leaf};
use crate::tls::revocation::{RevocationList, Revocations};

/// Two nodes whose certificates can be revoked, and the list each of them follows.
struct World {
    authority: Authority,
    issued: [Issued; 2],
    lists: [RevocationList; 2],
}

impl World {
    fn start(driver: crate::config::DriverChoice) -> (Self, Pair) {
        let authority = Authority::new("root", SystemTime::now()).unwrap();
        let mut plans = Plans::new();
        let identities = [
            workload("client", None).identity(),
            plans.backend.identity(),
        ];
        let issued = identities.each_ref().map(|identity| {
            let leaf = Leaf::new(identity, SystemTime::now());
            authority.issue(&leaf).unwrap()
        });
        let lists = [(); 2].map(|()| RevocationList::new(Revocations::default()));
        plans.client.credentials = store(&identities[0], &issued[0], &lists[0]);
        plans.server.credentials = store(&identities[1], &issued[1], &lists[1]);
        let world = Self {
            authority,
            issued,
            lists,
        };
        (world, plans.start(driver))
    }

    /// Puts the certificate of `whose` on the list that `at` follows.
    fn revoke(&self, whose: usize, at: usize) {
        let leaf = &*self.issued[whose].leaf;
        let pem = self.authority.revoke(&[leaf], SystemTime::now()).unwrap();
        self.lists[at].replace(Revocations::read(pem.as_bytes()).unwrap());
    }
}

fn store(identity: &Identity, issued: &Issued, list: &RevocationList) -> CredentialStore {
    let (options, now) = (TlsOptions::default(), SystemTime::now());
    let loaded = Credentials::load(identity, &issued.material(), options, now).unwrap();
    loaded.enforce(list);
    let state = CredentialState::Available(loaded.into());
    CredentialStore::new([(identity.clone(), state)])
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

#[test]
fn a_peer_that_is_revoked_loses_its_open_tunnel_and_gets_no_new_one() {
    for driver in DRIVERS {
        for (whose, at) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
            let (world, pair) = World::start(driver);
            let (mut client, mut served) = pair.open();
            exchange(&mut client, &mut served);
            world.revoke(whose, at);
            let (checking, role) = if at == SERVER {
                (&pair.server, Role::Server)
            } else {
                (&pair.client, Role::Client)
            };
            checking.mailbox.send(Message::Changed).unwrap();
            assert!(
                is_reset(&mut client),
                "the application sees a broken connection"
            );
            assert!(is_reset(&mut served));
            checking.logged("peer certificate revoked by CRL");
            let rejected = checking.counters.crl_rejections(role);
            assert_eq!(rejected.get(), 1);
            // No other comes about. The first may still find the old tunnel, on its way out.
            until("a refusal", || {
                assert!(is_reset(&mut pair.client.connect()));
                rejected.get() >= 2
            });
            drop((client, served));
            pair.stop(|| Message::Drain);
        }
    }
}

#[test]
fn a_change_that_revokes_others_disturbs_nobody() {
    for driver in DRIVERS {
        let (world, pair) = World::start(driver);
        let (mut client, mut served) = pair.open();
        world.revoke(SERVER, SERVER);
        pair.server.mailbox.send(Message::Changed).unwrap();
        exchange(&mut client, &mut served);
        assert_eq!(pair.server.counters.crl_rejections(Role::Server).get(), 0);
        drop((client, served));
        pair.stop(|| Message::Drain);
    }
}
