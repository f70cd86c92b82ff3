//! Sends the spans of connections to a collector: OTLP over gRPC, in batches, on the control thread.
//! Only with the feature `otlp`.
//!
//! A batch that cannot be delivered is lost and counted: spans are no reason to hold memory or to slow
//! a connection.

mod message;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::grpc::{Channel, ConnectError, Server};
use crate::telemetry::log_limit;
use crate::telemetry::spans::{EXPORT_INTERVAL, Span};
use message::{ExportRequest, ExportResponse};

/// Spans of one request: about half a megabyte.
const SPANS_PER_EXPORT_MAX: usize = 512;

/// For one batch, the connection included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A batch was not delivered.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("collector not reached: {0}")]
    Connect(#[from] ConnectError),
    #[error("collector did not answer within {EXPORT_TIMEOUT:?}")]
    Timeout,
    #[error("collector: {:?}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
}

/// Takes spans from their queue to the collector.
#[derive(Debug)]
pub struct Exporter {
    server: Server,
    service: Arc<str>,
    spans: Receiver<Span>,
    channel: Option<Channel>,
}

impl Exporter {
    /// Connects with the first batch. `service` is the name spans go under.
    #[must_use]
    pub const fn new(server: Server, service: Arc<str>, spans: Receiver<Span>) -> Self {
        Self {
            server,
            service,
            spans,
            channel: None,
        }
    }

    /// Exports until `stop` is told or dropped, then what is left.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut ended = false;
        while !ended {
            tokio::select! {
                () = tokio::time::sleep(EXPORT_INTERVAL) => {}
                _ = &mut stop => ended = true,
            }
            self.export_all().await;
        }
    }

    async fn export_all(&mut self) {
        loop {
            let batch: Vec<_> = self.spans.try_iter().take(SPANS_PER_EXPORT_MAX).collect();
            let count = batch.len() as u64;
            if count == 0 {
                return;
            }
            let request = message::request(&self.service, &batch);
            let sent = timeout(EXPORT_TIMEOUT, self.export(request)).await;
            let result = match sent.unwrap_or(Err(ExportError::Timeout)) {
                Ok(()) => "ok",
                Err(error) => {
                    // Another connection may fare better.
                    self.channel = None;
                    log_limit::warn!(%error, spans = count, "spans lost");
                    "lost"
                }
            };
            metrics::counter!("corelane_spans_exported", "result" => result).increment(count);
            if result == "lost" {
                return;
            }
        }
    }

    async fn export(&mut self, request: ExportRequest) -> Result<(), ExportError> {
        let open = self.channel.clone().filter(|channel| !channel.is_closed());
        let channel = match open {
            Some(channel) => channel,
            None => self.server.connect(None).await?,
        };
        self.channel = Some(channel.clone());
        let mut client = Grpc::new(channel);
        let refused = |status| ExportError::Refused(Box::new(status));
        let ready = client.ready().await;
        ready.map_err(|error| refused(Status::unavailable(error.to_string())))?;
        let codec = ProstCodec::<ExportRequest, ExportResponse>::default();
        let method = PathAndQuery::from_static(METHOD);
        let answer = client.unary(Request::new(request), method, codec).await;
        let answer = answer.map_err(refused)?.into_inner();
        if let Some(partial) = answer.partial_success
            && partial.rejected_spans > 0
        {
            log_limit::warn!(
                rejected = partial.rejected_spans,
                why = partial.error_message,
                "the collector refused spans"
            );
        }
        Ok(())
    }
}
