//! Tests of the exporter against a collector of our own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use prost::Message;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codegen::Service;

use super::message::{AnyValue, CLIENT, FAILED, SERVER, SpanMessage, ValueKind};
use super::*;
use crate::config::server::{RootSource, ServerAddress};
use crate::control::grpc::testing::serve;
use crate::model::close::CloseReason;
use crate::model::trace::TraceParent;
use crate::telemetry::flow::Flow;
use crate::telemetry::line::{Level, LineFormat};
use crate::telemetry::spans::{ALL_PER_MILLION, queue};
use crate::telemetry::testing::{inbound, outbound, writer};
use crate::telemetry::{Hub, HubOptions};
use crate::tls::TlsOptions;

/// Takes requests, tells the test of them, and answers with a status.
#[derive(Clone)]
struct Collector {
    got: mpsc::UnboundedSender<(String, ExportRequest)>,
    status: &'static str,
}

impl Service<http::Request<Body>> for Collector {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (got, status) = (self.got.clone(), self.status);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            // Flag and length of the gRPC message come first.
            let message = ExportRequest::decode(&body[5..]).unwrap();
            let _ = got.send((path, message));
            let mut answer = BytesMut::new();
            answer.put_u8(0);
            answer.put_u32(0);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(status));
            let body = Full::new(Bytes::from(answer)).with_trailers(async { Some(Ok(trailers)) });
            let mut response = Response::new(Body::new(body));
            let kind = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert("content-type", kind);
            Ok(response)
        })
    }
}

async fn collector(
    status: &'static str,
) -> (SocketAddr, mpsc::UnboundedReceiver<(String, ExportRequest)>) {
    let (got, requests) = mpsc::unbounded_channel();
    (serve(None, Collector { got, status }).await, requests)
}

fn server(at: SocketAddr) -> Server {
    Server {
        address: ServerAddress::Plain {
            host: at.ip().to_string().into(),
            port: at.port(),
        },
        roots: RootSource::System,
        alt_hostname: None,
        packet_mark: None,
        tls: TlsOptions::default(),
    }
}

/// A hub whose shard has served one connection as client and one as server.
fn spans_of_two_connections() -> Receiver<Span> {
    let (writer, _lines) = writer(LineFormat::Plain, Level::Off);
    let (queue, spans) = queue(ALL_PER_MILLION);
    let hub = Hub::new(HubOptions::default(), writer.sink()).with_spans(queue);
    let shard = Rc::new(hub.shard(0));
    let trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let trace_id = TraceParent::parse(trace);
    let now = tokio::time::Instant::now().into_std();
    for (flow, reason) in [
        (outbound(), CloseReason::Complete),
        (inbound(), CloseReason::Dial("refused".to_owned())),
    ] {
        let flow = shard.opened(Flow { trace_id, ..flow }, now);
        flow.to_server(11);
        flow.finish(&reason, now + Duration::from_millis(5));
    }
    assert!(writer.stop(Duration::from_secs(10)));
    spans
}

fn attribute<'a>(span: &'a SpanMessage, key: &str) -> &'a ValueKind {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key);
    let Some(AnyValue { value: Some(value) }) = found.and_then(|a| a.value.as_ref()) else {
        panic!("{key} in {span:?}");
    };
    value
}

#[tokio::test]
async fn connections_arrive_at_the_collector_as_spans_of_one_trace() {
    let (at, mut requests) = collector("0").await;
    let exporter = Exporter::new(server(at), "node".into(), spans_of_two_connections());
    let (stop, stopped) = oneshot::channel();
    drop(stop);
    exporter.run(stopped).await;
    let (path, request) = requests.recv().await.unwrap();
    assert_eq!(path, METHOD);
    let [of_node] = &request.resource_spans[..] else {
        panic!("{request:?}")
    };
    let name = &of_node.resource.as_ref().unwrap().attributes[0];
    assert_eq!(name.key, "service.name");
    let text = |text: &str| ValueKind::Text(text.to_owned());
    assert_eq!(name.value.as_ref().unwrap().value, Some(text("node")));
    let [client, server] = &of_node.scope_spans[0].spans[..] else {
        panic!("{request:?}")
    };
    let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
    assert_eq!(
        (&client.trace_id[..], &server.trace_id[..]),
        (&trace[..], &trace[..])
    );
    assert_eq!((client.kind, server.kind), (CLIENT, SERVER));
    assert_eq!((&*client.name, &*server.name), ("outbound", "inbound"));
    assert!(client.parent_span_id.is_empty());
    assert_eq!(server.parent_span_id, client.span_id);
    assert_eq!((client.span_id.len(), server.span_id.len()), (8, 8));
    assert_eq!(
        client.end_time_unix_nano - client.start_time_unix_nano,
        5_000_000
    );
    assert_eq!(attribute(client, "direction"), &text("outbound"));
    assert_eq!(attribute(client, "bytes_sent"), &ValueKind::Number(11));
    assert_eq!(attribute(server, "bytes_recv"), &ValueKind::Number(11));
    assert_eq!(attribute(client, "src.workload"), &text("client-0"));
    assert_eq!(client.status, None);
    let status = server.status.as_ref().unwrap();
    assert_eq!(
        (status.code, &*status.message),
        (FAILED, "connection failed: refused")
    );
}

#[tokio::test]
async fn a_collector_that_is_away_or_refuses_costs_spans_and_nothing_else() {
    let (queue, spans) = queue(ALL_PER_MILLION);
    let away = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    drop(queue);
    let mut exporter = Exporter::new(server(away), "node".into(), spans);
    let error = exporter.export(ExportRequest::default()).await.unwrap_err();
    assert!(matches!(error, ExportError::Connect(_)), "{error}");

    let (refusing, mut requests) = collector("14").await;
    let mut exporter = Exporter::new(server(refusing), "node".into(), spans_of_two_connections());
    exporter.export_all().await;
    assert!(requests.recv().await.is_some(), "it was asked");
    assert!(
        exporter.spans.try_recv().is_err(),
        "what was refused is not kept"
    );
    assert!(
        exporter.channel.is_none(),
        "the next batch has a connection of its own"
    );
}
