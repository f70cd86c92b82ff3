//! Tests of the readiness endpoint.

use super::*;
use crate::control::http::tests::Rig;

fn prompt() -> Probe {
    Box::new(|| Box::pin(async {}))
}

fn stuck() -> Probe {
    Box::new(|| Box::pin(std::future::pending()))
}

fn request(method: &str, path: &str) -> Request {
    Request {
        method: method.parse().unwrap(),
        uri: path.parse().unwrap(),
        headers: hyper::HeaderMap::new(),
    }
}

async fn answer(handler: &ReadinessHandler) -> (u16, String) {
    use http_body_util::BodyExt;
    let response = handler
        .handle(request("GET", "/healthz/ready"))
        .await
        .unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn node_is_ready_once_every_task_is_done() {
    let readiness = Readiness::new(Instant::now());
    let handler = ReadinessHandler::new(readiness.clone(), prompt());
    let (state, proxy) = (readiness.task("state manager"), readiness.task("proxy"));
    let body = "not ready, pending: proxy, state manager\n".to_owned();
    assert_eq!(answer(&handler).await, (500, body));
    proxy.done(Instant::now());
    assert_eq!(
        answer(&handler).await,
        (500, "not ready, pending: state manager\n".to_owned())
    );
    state.done(Instant::now());
    assert_eq!(answer(&handler).await, (200, "ready\n".to_owned()));
}

#[tokio::test]
async fn task_can_become_pending_again() {
    let readiness = Readiness::new(Instant::now());
    let handler = ReadinessHandler::new(readiness.clone(), prompt());
    readiness
        .task("workload proxy manager")
        .done(Instant::now());
    assert_eq!(answer(&handler).await.0, 200);
    let again = readiness.task("workload proxy manager");
    assert_eq!(answer(&handler).await.0, 500);
    again.done(Instant::now());
    assert_eq!(answer(&handler).await.0, 200);
}

#[tokio::test]
async fn task_that_is_given_up_stays_pending() {
    let readiness = Readiness::new(Instant::now());
    drop(readiness.task("proxy"));
    assert_eq!(readiness.pending(), ["proxy"]);
}

#[tokio::test]
async fn stuck_data_plane_fails_the_probe() {
    let readiness = Readiness::new(Instant::now());
    let mut handler = ReadinessHandler::new(readiness.clone(), stuck());
    assert_eq!(handler.timeout, Duration::from_secs(1));
    handler.timeout = Duration::from_millis(10);
    assert_eq!(
        answer(&handler).await,
        (500, "not ready, pending: data plane\n".to_owned())
    );
    let _task = readiness.task("aaa");
    let body = "not ready, pending: aaa, data plane\n".to_owned();
    assert_eq!(answer(&handler).await, (500, body));
}

#[tokio::test]
async fn other_methods_are_405_and_other_paths_404() {
    let rig = Rig::new(ReadinessHandler::new(
        Readiness::new(Instant::now()),
        prompt(),
    ));
    assert_eq!(rig.ask("POST", "/healthz/ready", "").await.status, 405);
    assert_eq!(rig.ask("GET", "/healthz", "").await.status, 404);
    let reply = rig.ask("GET", "/healthz/ready", "").await;
    assert_eq!((reply.status, reply.text()), (200, "ready\n"));
}

#[tokio::test]
async fn garbage_is_400() {
    let rig = Rig::new(ReadinessHandler::new(
        Readiness::new(Instant::now()),
        prompt(),
    ));
    assert!(
        rig.raw(b"garbage\r\n\r\n")
            .await
            .starts_with(b"HTTP/1.1 400")
    );
}
