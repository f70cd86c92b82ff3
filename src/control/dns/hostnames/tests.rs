//! Look-ups of hostnames against the scripted name server.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::super::tests::{NameServer, a, aaaa, answering, failing, run, sample, within};
use super::*;

fn hostnames(server: &NameServer, ipv6: bool) -> Rc<Hostnames> {
    Rc::new(Hostnames::new(&server.servers(), None, ipv6).unwrap())
}

fn sorted(addresses: &Addresses) -> Vec<String> {
    let addresses = addresses.as_ref().unwrap().iter();
    let mut texts: Vec<_> = addresses.map(ToString::to_string).collect();
    texts.sort();
    texts
}

/// Answers both families for every name.
fn both_families() -> NameServer {
    NameServer::start(|message, _| {
        let name = message.queries[0].name().to_string();
        let record = if message.queries[0].query_type() == RecordType::AAAA {
            aaaa(&name, "2001:db8::1")
        } else {
            a(&name, [10, 0, 0, 1])
        };
        Some(answering(&message, vec![record]))
    })
}

#[test]
fn both_families_are_asked_for_once_by_all_who_want_the_name() {
    run(|_| async move {
        let server = both_families();
        let hostnames = hostnames(&server, true);
        let host: Arc<str> = "db.example.com".into();
        let (first, second) =
            within(async { tokio::join!(hostnames.resolve(&host), hostnames.resolve(&host)) })
                .await;
        assert_eq!(sorted(&first), ["10.0.0.1", "2001:db8::1"]);
        assert_eq!(first, second);
        let mut asked = server.asked();
        asked.sort();
        let expected = ["udp A db.example.com.", "udp AAAA db.example.com."];
        assert_eq!(asked, expected);
        assert_eq!(sorted(&hostnames.resolve(&host).await).len(), 2);
        assert_eq!(server.asked().len(), 2, "the answer is kept");
        assert!(hostnames.under_way.borrow().is_empty());
    });
}

#[test]
fn without_ipv6_only_ipv4_is_asked_for() {
    run(|_| async move {
        let server = both_families();
        let found = within(hostnames(&server, false).resolve(&"db.example.com".into())).await;
        assert_eq!(sorted(&found), ["10.0.0.1"]);
        assert_eq!(server.asked(), ["udp A db.example.com."]);
    });
}

#[test]
fn no_records_no_name_and_no_answer_are_told_apart() {
    run(|_| async move {
        let server = NameServer::start(|message, _| {
            let name = message.queries[0].name().to_string();
            match name.as_str() {
                "empty.test." => Some(failing(&message, ResponseCode::NoError)),
                "missing.test." => Some(failing(&message, ResponseCode::NXDomain)),
                _ => None,
            }
        })
        .hasty();
        let hostnames = hostnames(&server, true);
        let resolve = async |name: &str| within(hostnames.resolve(&name.into())).await;
        assert_eq!(resolve("empty.test").await, Ok(Arc::default()));
        for name in ["missing.test", "silent.test"] {
            let error = resolve(name).await.unwrap_err();
            assert!(matches!(error, HostnameError::Failed(_)), "{name}: {error}");
        }
    });
}

#[test]
fn a_name_too_many_is_refused_and_counted_while_known_ones_are_joined() {
    run(|metrics| async move {
        let server = NameServer::start(|_, _| None);
        let hostnames = hostnames(&server, true);
        for n in 0..HOSTNAME_LOOKUPS_MAX {
            drop(hostnames.ask(&format!("n{n}.test").into()).unwrap());
        }
        assert!(hostnames.ask(&"n0.test".into()).is_ok());
        let refused = hostnames.resolve(&"more.test".into()).await;
        assert_eq!(refused, Err(HostnameError::TooMany));
        let limit = ["limit=\"hostname_lookups\""];
        assert_eq!(sample(&metrics, "corelane_dns_limits_hit", &limit), 1);
    });
}

#[test]
fn each_connection_is_counted_with_its_source() {
    run(|metrics| async move {
        let source = Workload {
            canonical_name: "shop".into(),
            ..Workload::default()
        };
        count(&source, "db.example.com");
        count(&source, "db.example.com");
        let labels = [
            "source_canonical_service=\"shop\"",
            "source_workload=\"unknown\"",
            "hostname=\"db.example.com\"",
        ];
        assert_eq!(sample(&metrics, "istio_on_demand_dns", &labels), 2);
    });
}
