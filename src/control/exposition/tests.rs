//! Tests of the metrics endpoint.

use std::io::Read;

use flate2::read::{GzDecoder, ZlibDecoder};
use hyper::header::{ACCEPT_ENCODING, HeaderName};

use super::encoding::{Encoding, choose};
use super::*;
use crate::control::http::tests::{Reply, Rig};
use crate::telemetry::HubOptions;
use crate::telemetry::line::{Level, LineFormat};
use crate::telemetry::testing::writer;

fn sources(recorder: PrometheusHandle) -> ExpositionSources {
    let (writer, _lines) = writer(LineFormat::Plain, Level::Off);
    let hub = Arc::new(Hub::new(HubOptions::default(), writer.sink()));
    assert!(writer.stop(std::time::Duration::from_secs(10)));
    drop(hub.shard(0));
    ExpositionSources {
        hub,
        recorder,
        mesh_version: "1.28.0".into(),
        certificates: Box::new(|| {
            vec![CertificateLife {
                identity: "spiffe://cluster.local/ns/a/sa/b".to_owned(),
                seconds_left: -5,
            }]
        }),
    }
}

fn rig() -> Rig {
    let recorder = recorder::build().unwrap();
    Rig::new(ExpositionHandler::new(sources(recorder.handle())))
}

fn page_of(sources: &ExpositionSources) -> String {
    sources.render(Instant::now().into_std())
}

fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(&name, HeaderValue::from_static(value));
    }
    headers
}

#[tokio::test]
async fn page_is_served_on_both_paths_with_any_method() {
    let rig = rig();
    for (method, path) in [
        ("GET", "/metrics"),
        ("POST", "/metrics"),
        ("GET", "/stats/prometheus"),
    ] {
        let reply = rig.ask(method, path, "").await;
        assert_eq!(reply.status, 200);
        assert!(reply.text().ends_with("\n# EOF\n"));
    }
    assert_eq!(rig.ask("GET", "/stats", "").await.status, 404);
    assert!(
        rig.raw(b"garbage\r\n\r\n")
            .await
            .starts_with(b"HTTP/1.1 400")
    );
}

#[tokio::test]
async fn fresh_page_has_build_and_process_and_no_traffic() {
    let recorder = recorder::build().unwrap();
    let page = page_of(&sources(recorder.handle()));
    let build = "# TYPE istio_build gauge\nistio_build{component=\"ztunnel\",tag=\"1.28.0\"} 1\n";
    assert!(page.contains(build), "{page}");
    for name in ["process_open_fds", "process_max_fds"] {
        let samples: Vec<_> = page.lines().filter(|line| line.starts_with(name)).collect();
        assert_eq!(samples.len(), 1, "{name}");
        let value: u64 = samples[0].split(' ').next_back().unwrap().parse().unwrap();
        assert!(value > 0, "{name}");
    }
    for absent in ["istio_tcp", "istio_xds", "istio_dns"] {
        assert!(!page.contains(absent), "{absent}");
    }
    let expired =
        "corelane_certificate_expiry_seconds{identity=\"spiffe://cluster.local/ns/a/sa/b\"} -5\n";
    assert!(page.contains(expired), "{page}");
    for help in page.lines().filter(|line| line.starts_with("# HELP")) {
        assert!(help.ends_with('.'), "{help}");
        let family = f::by_name(help.split(' ').nth(2).unwrap()).expect("listed");
        assert_eq!(help.contains("(unstable)"), !family.stable, "{help}");
    }
}

#[test]
fn content_type_follows_the_reference_s_comparison() {
    let prometheus = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                      encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,\
                      text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    for (values, expected) in [
        (&[][..], false),
        (&["application/json"], false),
        (&["application/openmetrics-text"], true),
        (&["application/openmetrics-text; x"], true),
        (&["Application/OpenMetrics-Text;version=1.0.0"], true),
        (&[prometheus], true),
        (&["application/json", "application/openmetrics-text"], true),
        (&["text/plain, application/openmetrics-text"], false),
        (&["application/openmetrics-text2"], false),
    ] {
        assert_eq!(
            wants_openmetrics(&headers(ACCEPT, values)),
            expected,
            "{values:?}"
        );
    }
}

#[tokio::test]
async fn both_content_types_carry_the_same_text() {
    let rig = rig();
    let open = rig
        .ask(
            "GET",
            "/metrics",
            "Accept: application/openmetrics-text; x\r\n",
        )
        .await;
    assert_eq!(open.header("content-type"), Some(OPENMETRICS_FULL));
    assert!(open.text().ends_with("# EOF\n"));
    let plain = rig
        .ask("GET", "/metrics", "Accept: application/json\r\n")
        .await;
    assert_eq!(
        plain.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(plain.text().ends_with("# EOF\n"));
}

#[test]
fn best_known_encoding_is_chosen() {
    for (values, expected) in [
        (&[][..], Encoding::Identity),
        (&["gzip"], Encoding::Gzip),
        (&["deflate"], Encoding::Deflate),
        (&["br, zstd"], Encoding::Zstd),
        (&["br;q=1.0, gzip;q=0.5"], Encoding::Brotli),
        (&["compress, x-gzip"], Encoding::Gzip),
        (&["compress, identity"], Encoding::Identity),
        (&["deflate, GZIP"], Encoding::Gzip),
        (&["gzip, deflate"], Encoding::Gzip),
        (&["gzip;q=0.1, deflate;q=0.9"], Encoding::Deflate),
        (&["gzip;q=0"], Encoding::Identity),
        (&["gzip;q=0", "deflate"], Encoding::Deflate),
        (&["gzip;q=x"], Encoding::Identity),
    ] {
        assert_eq!(
            choose(&headers(ACCEPT_ENCODING, values)),
            expected,
            "{values:?}"
        );
    }
}

/// A page without what changes from request to request.
fn steady(page: &str) -> Vec<&str> {
    let changes = ["process_open_fds", "corelane_scrape", "corelane_http"];
    page.lines()
        .filter(|line| !changes.iter().any(|name| line.contains(name)))
        .collect()
}

#[tokio::test]
async fn compressed_page_unpacks_to_the_plain_one() {
    let rig = rig();
    let plain = rig.ask("GET", "/metrics", "").await;
    assert_eq!(plain.header("content-encoding"), None);
    let unpacked = |reply: &Reply, encoding: &str| {
        assert_eq!(reply.header("content-encoding"), Some(encoding));
        assert!(reply.body.len() < plain.body.len() / 2);
        let mut text = String::new();
        match encoding {
            "gzip" => GzDecoder::new(&reply.body[..])
                .read_to_string(&mut text)
                .unwrap(),
            "zstd" => ruzstd::decoding::StreamingDecoder::new(&reply.body[..])
                .unwrap()
                .read_to_string(&mut text)
                .unwrap(),
            "br" => brotli::Decompressor::new(&reply.body[..], 4_096)
                .read_to_string(&mut text)
                .unwrap(),
            _ => ZlibDecoder::new(&reply.body[..])
                .read_to_string(&mut text)
                .unwrap(),
        };
        text
    };
    for encoding in ["gzip", "zstd", "br", "deflate"] {
        let reply = rig
            .ask(
                "GET",
                "/metrics",
                &format!("Accept-Encoding: {encoding}\r\n"),
            )
            .await;
        assert_eq!(
            steady(&unpacked(&reply, encoding)),
            steady(plain.text()),
            "{encoding}"
        );
    }
}

#[test]
fn recorded_families_join_the_page_in_its_format() {
    let recorder = recorder::build().unwrap();
    let sources = sources(recorder.handle());
    metrics::with_local_recorder(&recorder, || {
        for code in ["404", "200", "200"] {
            metrics::counter!("corelane_http_requests", "server" => "st\"ats", "code" => code)
                .increment(1);
        }
        metrics::histogram!("corelane_scrape_seconds").record(0.002);
        metrics::gauge!("corelane_not_listed").set(1.5);
    });
    let page = page_of(&sources);
    let requests = "# HELP corelane_http_requests Requests answered by the admin, metrics and readiness servers (unstable).\n\
                    # TYPE corelane_http_requests counter\n\
                    corelane_http_requests_total{server=\"st\\\"ats\",code=\"200\"} 2\n\
                    corelane_http_requests_total{server=\"st\\\"ats\",code=\"404\"} 1\n";
    assert!(page.contains(requests), "{page}");
    let seconds = "# TYPE corelane_scrape_seconds histogram\n# UNIT corelane_scrape_seconds seconds\n\
                   corelane_scrape_seconds_bucket{le=\"0.0005\"} 0\n";
    assert!(page.contains(seconds), "{page}");
    assert!(page.contains("corelane_scrape_seconds_count 1\n"), "{page}");
    assert!(
        page.contains("# HELP corelane_not_listed corelane_not_listed (unstable).\n"),
        "{page}"
    );
    assert_eq!(page.matches("# EOF").count(), 1);
    assert!(page.ends_with("\n# EOF\n"));
    assert!(page.lines().all(|line| !line.is_empty()));
}

#[tokio::test]
async fn requests_are_counted_by_server_and_code() {
    let recorder = recorder::build().unwrap();
    let handle = recorder.handle();
    // One thread runs the whole test, so its recorder sees what the server records.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::new(ExpositionHandler::new(sources(handle.clone())));
    assert_eq!(rig.ask("GET", "/nope", "").await.status, 404);
    let text = handle.render();
    assert!(
        text.contains("corelane_http_requests_total{server=\"test\",code=\"404\"} 1"),
        "{text}"
    );
}
