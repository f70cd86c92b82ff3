//! Connections that wait for the certificate of their workload.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::node::{DRIVERS, Plans, exchange, patient, store, workload};
use crate::dataplane::shard::{CertificateAsker, Message};
use crate::tls::credentials::CredentialStore;

#[test]
fn a_connection_asks_once_for_the_certificate_it_needs_and_waits_for_it() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        let (sender, questions) = channel();
        plans.client.credentials = CredentialStore::default();
        plans.client.certificates = Some(CertificateAsker::new(move |identity| {
            sender.send(identity.clone()).is_ok()
        }));
        let mut pair = plans.start(driver);
        let mut client = pair.client.connect();
        let asked = questions.recv_timeout(Duration::from_secs(20)).unwrap();
        let own = workload("client", None).identity();
        assert_eq!(asked, own);
        // Another publication answers nothing and asks nothing.
        pair.client.present(CredentialStore::default());
        pair.client.present(store(&pair.pki, &[own]));
        let mut served = patient(pair.application.accept().unwrap().0);
        exchange(&mut client, &mut served);
        assert!(questions.try_recv().is_err(), "asked once");
        drop((client, served));
        pair.stop(|| Message::Drain);
    }
}
