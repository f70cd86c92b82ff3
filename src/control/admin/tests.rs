//! Tests of the admin endpoints.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::control::exposition::CertificateLife;
use crate::control::http::tests::Rig;
use crate::control::logging::Filter;
use crate::control::readiness::Readiness;
use crate::telemetry::line::{Level, LineFormat};
use crate::telemetry::testing::writer;
use crate::telemetry::{DriverInfo, Hub, HubOptions};

pub(super) struct Admin {
    pub(super) rig: Rig,
    quits: Arc<AtomicU32>,
    readiness: Readiness,
}

pub(super) fn admin() -> Admin {
    let (writer, _lines) = writer(LineFormat::Plain, Level::Info);
    let sink = writer.sink();
    sink.line("2026\terror\tx\tit broke\t\n".to_owned(), Level::Error);
    assert!(writer.stop(Duration::from_secs(10)));
    let hub = Arc::new(Hub::new(HubOptions::default(), sink.clone()));
    let shard = hub.shard(0);
    shard.counters().connections_open.add(2);
    shard.counters().tunnels_client_open.add(1);
    let fallback = "no permission".to_owned();
    shard.counters().set_driver(DriverInfo {
        name: "epoll",
        fallback,
    });
    let quits = Arc::new(AtomicU32::new(0));
    let readiness = Readiness::new(Instant::now());
    let section = |name, source: fn() -> Result<Value, String>| Section {
        name,
        source: Box::new(source),
    };
    let sources = AdminSources {
        logging: Logging::new(Filter::at_start(None).unwrap(), sink),
        sections: vec![
            section("workloads", || Ok(json!([{"name": "w"}]))),
            section("staticConfig", || Err("unreadable".to_owned())),
        ],
        live: Box::new(|| vec![("connections", json!({"inbound": []}))]),
        mesh_version: "1.28.0".into(),
        status: status::StatusSources {
            hub,
            readiness: readiness.clone(),
            alive: Box::new(|shard| shard == 0),
            certificates: Box::new(|| {
                let identity = "spiffe://td/ns/a/sa/b".to_owned();
                vec![CertificateLife {
                    identity,
                    seconds_left: 60,
                }]
            }),
            generation: Box::new(|| 7),
        },
        quit: {
            let quits = Arc::clone(&quits);
            Box::new(move || {
                quits.fetch_add(1, Ordering::Relaxed);
            })
        },
    };
    Admin {
        rig: Rig::new(AdminHandler::new(sources)),
        quits,
        readiness,
    }
}

#[tokio::test]
async fn index_links_every_endpoint() {
    let admin = admin();
    let reply = admin.rig.ask("GET", "/", "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    for (path, _, _) in INDEX {
        assert!(reply.text().contains(&format!("href=\"{path}\"")), "{path}");
        let query = if path.ends_with("profile") {
            "?seconds=0"
        } else {
            ""
        };
        let target = format!("{path}{query}");
        assert_ne!(
            admin.rig.ask("GET", &target, "").await.status,
            404,
            "{path}"
        );
    }
    assert_eq!(admin.rig.ask("GET", "/unknown", "").await.status, 404);
    assert_eq!(
        admin.rig.ask("GET", "/debug/pprof/other", "").await.status,
        404
    );
}

#[tokio::test]
async fn config_dump_assembles_its_sections() {
    let admin = admin();
    let reply = admin.rig.ask("GET", "/config_dump", "").await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/json"))
    );
    let dump: Value = serde_json::from_str(reply.text()).unwrap();
    assert_eq!(dump["workloads"], json!([{"name": "w"}]));
    assert_eq!(
        dump["staticConfig"],
        Value::Null,
        "a section that fails leaves the rest"
    );
    assert_eq!(dump["connections"], json!({"inbound": []}));
    assert_eq!(dump["version"]["istioVersion"], "1.28.0");
    assert_eq!(dump["version"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(dump["version"].as_object().unwrap().len(), 7);
    assert!(reply.text().starts_with("{\n  \""), "two blanks of indent");
}

#[tokio::test]
async fn logging_follows_the_contract_s_table() {
    let admin = admin();
    let off = |rest: &str| format!("current log level is hickory_server::server=off,{rest}\n");
    let help = LOGGING_HELP.lines().next().unwrap();
    for (query, status, answer) in [
        ("", 200, off("info")),
        ("?level=", 200, off("info")),
        ("?level=&reset", 200, off("info")),
        (
            "?reset&level=invalid_level",
            400,
            "Invalid level provided: invalid_level\n".to_owned(),
        ),
        (
            "?level=access:debug",
            400,
            "Invalid level provided: access:debug\n".to_owned(),
        ),
        (
            "?level=access",
            400,
            "Invalid level provided: access\n".to_owned(),
        ),
        ("?level=debug&reset", 200, off("debug")),
        (
            "?level=access=debug,info&reset",
            200,
            off("access=debug,info"),
        ),
        ("?level=warn", 200, off("access=debug,warn")),
        ("?level=warn&reset", 200, off("warn")),
        ("?level=error&reset", 200, off("error")),
        ("?level=trace&reset", 200, off("trace")),
        ("?level=info&reset", 200, off("info")),
        ("?level=off&reset=", 200, off("off")),
        ("?reset=false", 200, off("info")),
        ("?level=debug&level=error", 200, off("error")),
        ("?level=A%3DDEBUG", 200, off("A=debug,error")),
    ] {
        let reply = admin.rig.ask("POST", &format!("/logging{query}"), "").await;
        assert_eq!(reply.status, status, "{query}");
        if status == 200 {
            assert_eq!(reply.text(), answer, "{query}");
        } else {
            assert!(
                reply.text().starts_with(&answer),
                "{query}: {}",
                reply.text()
            );
            assert!(reply.text().contains(help), "{query}");
        }
    }
    let reply = admin.rig.ask("GET", "/logging?level=debug", "").await;
    assert_eq!((reply.status, reply.text()), (405, LOGGING_HELP));
    assert_eq!(
        admin.rig.ask("POST", "/logging", "").await.text(),
        off("A=debug,error")
    );
}

#[tokio::test]
async fn shutdown_is_started_by_post_only() {
    let admin = admin();
    let reply = admin.rig.ask("GET", "/quitquitquit", "").await;
    assert_eq!((reply.status, reply.text()), (405, ""));
    assert_eq!(admin.quits.load(Ordering::Relaxed), 0);
    let reply = admin.rig.ask("POST", "/quitquitquit", "").await;
    assert_eq!((reply.status, reply.text()), (200, "shutdown now\n"));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    assert_eq!(admin.quits.load(Ordering::Relaxed), 1);
}

#[cfg(not(feature = "pprof"))]
#[tokio::test]
async fn profiling_says_that_it_is_not_built() {
    let admin = admin();
    for path in ["profile?seconds=1", "heap", "heap/profiling?activate=true"] {
        let reply = admin
            .rig
            .ask("GET", &format!("/debug/pprof/{path}"), "")
            .await;
        assert_eq!(
            (reply.status, reply.text()),
            (
                501,
                "built without profiling; build with `--features pprof`\n"
            ),
            "{path}"
        );
    }
}

#[tokio::test]
async fn status_tells_how_the_node_is_doing() {
    let admin = admin();
    let _task = admin.readiness.task("proxy");
    let reply = admin.rig.ask("GET", "/status", "").await;
    assert_eq!(reply.status, 200);
    let status: Value = serde_json::from_str(reply.text()).unwrap();
    assert_eq!(status["ready"], false);
    assert_eq!(status["pending"], json!(["proxy"]));
    assert_eq!(status["generation"], 7);
    assert_eq!(
        (&status["connections"], &status["tunnels"]),
        (&json!(2), &json!(1))
    );
    let shard = &status["shards"][0];
    assert_eq!(
        (&shard["shard"], &shard["alive"]),
        (&json!(0), &json!(true))
    );
    assert_eq!(
        (&shard["driver"], &shard["fallback"]),
        (&json!("epoll"), &json!("no permission"))
    );
    assert_eq!(status["certificates"][0]["secondsLeft"], 60);
    assert_eq!(status["lastErrors"], json!(["2026\terror\tx\tit broke"]));
}

#[tokio::test]
async fn requests_a_foreign_page_could_cause_are_refused() {
    let admin = admin();
    for headers in [
        "Host: evil.example\r\n",
        "Host: localhost.evil.example\r\n",
        "Host: 10.0.0.1:15000\r\n",
        "Host: localhost@evil.example\r\n",
        "Host: \r\n",
        "Host: localhost\r\nOrigin: https://evil.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        let reply = admin.rig.ask("POST", "/quitquitquit", headers).await;
        assert_eq!(reply.status, 403, "{headers}");
        assert_eq!(
            admin.rig.ask("GET", "/config_dump", headers).await.status,
            403,
            "{headers}"
        );
    }
    let target = "http://evil.example/quitquitquit";
    assert_eq!(
        admin
            .rig
            .ask("POST", target, "Host: localhost\r\n")
            .await
            .status,
        403
    );
    assert_eq!(admin.quits.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn requests_from_this_machine_are_served() {
    let admin = admin();
    for headers in [
        "Host: localhost:15000\r\n",
        "Host: LOCALHOST\r\n",
        "Host: 127.0.0.1:15000\r\n",
        "Host: 127.5.6.7\r\n",
        "Host: [::1]:15000\r\n",
        "Host: localhost\r\nOrigin: http://localhost:15000\r\nSec-Fetch-Site: same-origin\r\n",
        "Host: localhost\r\nSec-Fetch-Site: none\r\n",
    ] {
        assert_eq!(
            admin.rig.ask("GET", "/", headers).await.status,
            200,
            "{headers}"
        );
    }
    let without = admin.rig.raw(b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(
        without.starts_with(b"HTTP/1.0 200"),
        "tools that send no Host are no browsers"
    );
}
