//! Connections to a server of our own on loopback, which answers with what it was sent.

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::net::{TcpListener, UnixListener};
use tonic::body::Body;
use tonic::codegen::Service;

use super::testing::{issue_for_hosts, serve, serve_connection, tls};
use super::*;
use crate::model::identity::Identity;
use crate::tls::dev_pki::Authority;

/// Answers with the address and path it was asked for.
#[derive(Clone)]
struct Echo;

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let body = Full::new(Bytes::from(request.uri().to_string()));
        ready(Ok(Response::new(Body::new(body))))
    }
}

fn authority(name: &str) -> Authority {
    Authority::new(name, SystemTime::now()).unwrap()
}

fn pem(authority: &Authority) -> RootSource {
    RootSource::Pem(authority.root_pem().into())
}

fn server(host: &str, port: u16, roots: RootSource) -> Server {
    Server {
        address: ServerAddress::Tls {
            host: host.into(),
            port,
        },
        roots,
        alt_hostname: None,
        packet_mark: None,
        tls: TlsOptions::default(),
    }
}

/// Port of a server whose certificate is for `hosts`.
async fn serve_hosts(authority: &Authority, hosts: &[&str]) -> u16 {
    let issued = issue_for_hosts(authority, hosts);
    serve(Some(tls(&issued, None)), Echo).await.port()
}

/// What the server was asked for.
async fn ask(channel: &mut Channel) -> Result<String, channel::ChannelError> {
    poll_fn(|cx| channel.poll_ready(cx)).await?;
    let request = Request::builder().uri("/service/method");
    let answer = channel.call(request.body(Body::empty()).unwrap()).await?;
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

async fn refusal(server: &Server) -> String {
    server.connect(None).await.unwrap_err().to_string()
}

#[tokio::test]
async fn server_with_the_right_root_and_name_is_accepted() {
    let authority = authority("a");
    let port = serve_hosts(&authority, &["localhost"]).await;
    let server = server("localhost", port, pem(&authority));
    let mut channel = server.connect(None).await.unwrap();
    for _ in 0..2 {
        let asked = ask(&mut channel).await.unwrap();
        assert_eq!(asked, format!("https://localhost:{port}/service/method"));
    }
    assert!(!channel.is_closed());
}

#[tokio::test]
async fn address_in_the_certificate_serves_as_well_as_a_name() {
    let authority = authority("a");
    let port = serve_hosts(&authority, &["127.0.0.1"]).await;
    let good = server("127.0.0.1", port, pem(&authority));
    ask(&mut good.connect(None).await.unwrap()).await.unwrap();
    let text = refusal(&server("localhost", port, pem(&authority))).await;
    assert!(
        text.contains("valid not for localhost, only for no DNS name"),
        "{text}"
    );
}

#[tokio::test]
async fn server_of_another_authority_is_refused() {
    let port = serve_hosts(&authority("a"), &["localhost"]).await;
    let text = refusal(&server("localhost", port, pem(&authority("b")))).await;
    let expected = format!(
        "https://localhost:{port}: no TLS session: its certificate is not signed by a root of the \
         roots given as text (is this the right root file?)"
    );
    assert_eq!(text, expected);
}

#[tokio::test]
async fn server_with_another_name_is_refused_unless_it_is_the_alternative() {
    let authority = authority("a");
    let port = serve_hosts(&authority, &["istiod.istio-system.svc", "b"]).await;
    let mut server = server("localhost", port, pem(&authority));
    let text = refusal(&server).await;
    let expected = "valid not for localhost, only for istiod.istio-system.svc, b";
    assert!(text.contains(expected), "{text}");
    server.alt_hostname = Some("other".into());
    let text = refusal(&server).await;
    assert!(
        text.contains("valid neither for localhost nor other"),
        "{text}"
    );
    server.alt_hostname = Some("istiod.istio-system.svc".into());
    ask(&mut server.connect(None).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn replaced_root_file_counts_from_the_next_connection_on() {
    let (old, new) = (authority("old"), authority("new"));
    let port = serve_hosts(&new, &["localhost"]).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root-cert.pem");
    let server = server("localhost", port, RootSource::File(path.clone()));
    let text = refusal(&server).await;
    assert!(text.contains("root-cert.pem: No such file"), "{text}");
    std::fs::write(&path, "no certificate").unwrap();
    let text = refusal(&server).await;
    assert!(
        text.contains("root-cert.pem: contains no certificate"),
        "{text}"
    );
    std::fs::write(&path, old.root_pem()).unwrap();
    assert!(refusal(&server).await.contains("not signed by a root of"));
    std::fs::write(&path, format!("{}{}", old.root_pem(), new.root_pem())).unwrap();
    ask(&mut server.connect(None).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn own_certificate_is_shown_to_a_server_that_asks() {
    let authority = authority("a");
    let issued = issue_for_hosts(&authority, &["localhost"]);
    let port = serve(Some(tls(&issued, Some(&authority))), Echo)
        .await
        .port();
    let server = server("localhost", port, pem(&authority));
    let identity = Identity::new("cluster.local", "vms", "legacy");
    let own = authority.credentials(&identity, TlsOptions::default(), SystemTime::now());
    let own = own.unwrap();
    let mut channel = server.connect(Some(&own)).await.unwrap();
    ask(&mut channel).await.unwrap();
    // In TLS 1.3 the refusal comes after our handshake is done.
    let refused = match server.connect(None).await {
        Ok(mut channel) => ask(&mut channel).await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(
        refused.contains("connection lost") || refused.contains("certificate"),
        "{refused}"
    );
}

#[tokio::test]
async fn plain_text_and_unix_sockets_are_used_where_the_address_says_so() {
    let port = serve(None, Echo).await.port();
    let mut server = server("localhost", port, RootSource::File("/nonexistent".into()));
    server.address = ServerAddress::Plain {
        host: "127.0.0.1".into(),
        port,
    };
    let mut channel = server.connect(None).await.unwrap();
    let asked = ask(&mut channel).await.unwrap();
    assert_eq!(asked, format!("http://127.0.0.1:{port}/service/method"));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("xds.sock");
    server.address = ServerAddress::Unix(path.clone());
    let text = refusal(&server).await;
    assert!(
        text.contains("xds.sock: no connection: No such file"),
        "{text}"
    );
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve_connection(stream, Echo).await;
    });
    let mut channel = server.connect(None).await.unwrap();
    let asked = ask(&mut channel).await.unwrap();
    assert_eq!(asked, "http://localhost/service/method");
}

#[tokio::test]
async fn unreachable_servers_are_named_with_the_reason() {
    let authority = authority("a");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let text = refusal(&server("127.0.0.1", port, pem(&authority))).await;
    let expected = format!("no connection to 127.0.0.1:{port}: Connection refused");
    assert!(text.contains(&expected), "{text}");
    let text = refusal(&server("a_b..c", port, pem(&authority))).await;
    assert!(text.contains("a_b..c"), "{text}");
}

#[tokio::test]
async fn server_that_says_nothing_is_left_after_the_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let authority = authority("a");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.pem");
    std::fs::write(&path, authority.root_pem()).unwrap();
    let server = server("127.0.0.1", port, RootSource::File(path));
    let accept = async {
        let stream = silent.accept().await.unwrap();
        // From here on only timers are left, and they need not be waited for.
        tokio::time::pause();
        std::future::pending::<()>().await;
        drop(stream);
    };
    let text = tokio::select! {
        text = refusal(&server) => text,
        () = accept => unreachable!(),
    };
    assert!(text.contains("no TLS session within 5s"), "{text}");
}
