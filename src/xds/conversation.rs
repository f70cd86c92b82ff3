//! Runs the conversation with a control plane on tokio, over any gRPC service, for ever.
//!
//! Streams come from [`Connect`], so that this file knows no socket and no TLS; changes go to
//! [`MeshState`], look-ups come from a queue. A response is applied in slices with a yield after each,
//! so that the control thread stays able to answer, and published once it is whole.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tonic::Streaming;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError, tokio_stream};
use tonic::metadata::MetadataMap;
use tracing::Instrument as _;

use super::cache::Kept;
use super::client::{Client, Received};
use super::reconnect::{Backoff, StreamEnd};
use crate::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::snapshot::builder::Change;

/// Largest response: 100,000 workloads take about 50 MiB.
const RESPONSE_BYTES_MAX: usize = 200 * 1024 * 1024;
/// Requests that may wait to be sent. A server that reads so little is left.
const REQUESTS_MAX: usize = 1_000;

/// Refused resources of one response that get a log line each; all are named in the answer.
const REJECTED_LOGGED_MAX: usize = 20;

/// A look-up that missed: its key, and whom to tell that it should be repeated. A sender dropped
/// without a word means that the control plane did not answer, or cannot be asked now.
#[derive(Debug)]
pub struct LookUp {
    /// `network/ip`, `namespace/hostname` or the uid of a workload.
    pub key: Arc<str>,
    /// Gets its answer.
    pub waiter: oneshot::Sender<()>,
}

/// An open connection and the headers of the stream (token, cluster, extra ones).
#[derive(Debug)]
pub struct Opened<S> {
    /// The connection.
    pub service: S,
    /// Headers.
    pub headers: MetadataMap,
}

/// Opens connections to the control plane.
pub trait Connect {
    /// Body of its answers.
    type Answer: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static;
    /// What gRPC runs on.
    type Service: GrpcService<Body, ResponseBody = Self::Answer, Error: Into<StdError>>;
    /// Why it failed, to be logged.
    type Error: std::fmt::Display;

    /// Opens one.
    fn connect(&mut self) -> impl Future<Output = Result<Opened<Self::Service>, Self::Error>>;
}

/// Where changes go.
pub trait MeshState {
    /// Takes a part of a response; nobody sees it yet.
    fn apply(&mut self, change: Change);
    /// Shows what was applied.
    fn publish(&mut self);
    /// The state is complete for the first time.
    fn synced(&mut self);
    /// A stream to the control plane came about, or ended.
    fn connected(&mut self, yes: bool);
    /// What a response changed, as received; only if [`Client::keep_received`] was asked for.
    fn received(&mut self, received: Received);
}

/// The queue of requests is full.
struct QueueFull;

/// A stream of what is put into a channel.
struct Queue<T>(mpsc::Receiver<T>);

impl<T> tokio_stream::Stream for Queue<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}

/// Everything one conversation needs, over all of its streams.
#[derive(Debug)]
pub struct Conversation<C, S> {
    connect: C,
    parts: Parts<S>,
    backoff: Backoff,
}

/// What a conversation has besides its connections.
#[derive(Debug)]
struct Parts<S> {
    client: Client<oneshot::Sender<()>>,
    state: S,
    look_ups: mpsc::Receiver<LookUp>,
}

/// Requests on their way to the server.
type Requests = mpsc::Sender<DeltaDiscoveryRequest>;

impl<C: Connect, S: MeshState> Conversation<C, S> {
    /// Nothing is done before [`Self::run`].
    pub fn new(
        client: Client<oneshot::Sender<()>>,
        connect: C,
        state: S,
        look_ups: mpsc::Receiver<LookUp>,
    ) -> Self {
        Self {
            connect,
            parts: Parts {
                client,
                state,
                look_ups,
            },
            backoff: Backoff::default(),
        }
    }

    /// Takes over what was accepted in a former life, as if it came now. Versions are forgotten, so
    /// that the server sends everything again and says what is gone.
    pub async fn restore(&mut self, kept: Kept) {
        for response in kept.responses {
            self.parts.apply(response).await;
        }
    }

    /// From now on the state is told what was received ([`MeshState::received`]).
    pub const fn keep_received(&mut self) {
        self.parts.client.keep_received();
    }

    /// Connects again and again. Dropping the future closes the stream; at a slice's end at the
    /// earliest, and what was applied but not published is never seen.
    pub async fn run(mut self) -> std::convert::Infallible {
        for id in 1_u64.. {
            let span = tracing::info_span!(target: "corelane::xds", "xds", id);
            let (end, answered) = self.stream().instrument(span).await;
            self.parts.client.disconnected();
            metrics::gauge!("corelane_xds_connected").set(0.0);
            self.parts.state.connected(false);
            metrics::counter!("istio_xds_connection_terminations", "reason" => end.reason())
                .increment(1);
            let wait = self.backoff.after(end, answered, fastrand::u32(..));
            tracing::info!(
                target: "corelane::xds",
                reason = end.reason(),
                retry_in = ?wait,
                "stream to the control plane ended, the last state stays in force"
            );
            self.parts.beside(tokio::time::sleep(wait)).await;
        }
        // More streams than a clock can count.
        std::future::pending().await
    }

    /// One stream from its opening to its end; whether it brought anything.
    async fn stream(&mut self) -> (StreamEnd, bool) {
        let opened = match self.parts.beside(self.connect.connect()).await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(target: "corelane::xds", "control plane not reached: {error}");
                return (StreamEnd::NotOpened, false);
            }
        };
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        for request in self.parts.client.connected() {
            if requests.try_send(request).is_err() {
                return (StreamEnd::Local, false);
            }
        }
        let mut request = tonic::Request::new(Queue(queue));
        *request.metadata_mut() = opened.headers;
        let mut grpc = AggregatedDiscoveryServiceClient::new(opened.service)
            .max_decoding_message_size(RESPONSE_BYTES_MAX);
        let mut call = pin!(grpc.delta_aggregated_resources(request));
        let responses = loop {
            tokio::select! {
                answer = &mut call => match answer {
                    Ok(answer) => break answer.into_inner(),
                    Err(status) => {
                        tracing::warn!(target: "corelane::xds", "stream refused: {status}");
                        return (StreamEnd::NotOpened, false);
                    }
                },
                done = self.parts.look_up(Some(&requests)) => if done.is_err() {
                    return (StreamEnd::Failed, false);
                },
            }
        };
        tracing::info!(target: "corelane::xds", "stream to the control plane established");
        metrics::gauge!("corelane_xds_connected").set(1.0);
        self.parts.state.connected(true);
        self.parts.serve(responses, &requests).await
    }
}

impl<S: MeshState> Parts<S> {
    /// Takes responses until the stream ends; whether there was any.
    async fn serve(
        &mut self,
        mut responses: Streaming<DeltaDiscoveryResponse>,
        requests: &Requests,
    ) -> (StreamEnd, bool) {
        let mut answered = false;
        loop {
            tokio::select! {
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        answered = true;
                        let reply = self.apply(response).await;
                        if reply.is_some_and(|reply| requests.try_send(reply).is_err()) {
                            return (StreamEnd::Failed, answered);
                        }
                    }
                    Ok(None) => return (StreamEnd::Complete, answered),
                    Err(status) => {
                        tracing::warn!(target: "corelane::xds", "stream ended: {status}");
                        let code = i32::from(status.code());
                        return (StreamEnd::from_status(code, status.message()), answered);
                    }
                },
                done = self.look_up(Some(requests)) => if done.is_err() {
                    return (StreamEnd::Failed, answered);
                },
            }
        }
    }

    /// Waits for `work` without a stream, and serves look-ups meanwhile.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                // Without a stream nothing is sent, so nothing can be full.
                _ = self.look_up(None) => {}
            }
        }
    }

    /// Applies a response; what to answer, unless its stream is gone.
    async fn apply(&mut self, response: DeltaDiscoveryResponse) -> Option<DeltaDiscoveryRequest> {
        let mut intake = self.client.begin(response);
        if intake.kind().is_none() {
            let url = intake.type_url();
            tracing::warn!(target: "corelane::xds", "resources of unknown type {url} are ignored");
        }
        while let Some(change) = intake.next_change() {
            if !change.is_empty() {
                self.state.apply(change);
            }
            tokio::task::yield_now().await;
        }
        if intake.has_effect() {
            self.state.publish();
        }
        if let Some(kind) = intake.kind()
            && intake.is_from_stream()
        {
            let bytes = u64::try_from(intake.bytes()).unwrap_or(u64::MAX);
            metrics::counter!("istio_xds_message", "url" => kind.url()).increment(1);
            metrics::counter!("istio_xds_message_bytes", "url" => kind.url()).increment(bytes);
        }
        let outcome = self.client.finish(intake);
        for (name, why) in outcome.rejected.iter().take(REJECTED_LOGGED_MAX) {
            tracing::warn!(target: "corelane::xds", "{name} is refused: {why}");
        }
        if !outcome.rejected.is_empty() {
            let count = u64::try_from(outcome.rejected.len()).unwrap_or(u64::MAX);
            metrics::counter!("corelane_xds_rejected_resources").increment(count);
        }
        for waiter in outcome.answered {
            // Nobody waits any more: the connection is gone.
            let _ = waiter.send(());
        }
        if let Some(received) = outcome.received {
            self.state.received(received);
        }
        if outcome.synced_now {
            self.state.synced();
        }
        outcome.reply
    }

    /// Waits for a look-up or for the deadline of one, and serves it. Dropping the future loses
    /// nothing.
    async fn look_up(&mut self, requests: Option<&Requests>) -> Result<(), QueueFull> {
        let deadline = self.client.next_deadline();
        tokio::select! {
            Some(look_up) = self.look_ups.recv() => {
                let asked = self.client.look_up(&look_up.key, look_up.waiter, now());
                // A waiter that comes back is dropped, which tells the other end.
                let Ok(Some(request)) = asked else { return Ok(()) };
                match requests {
                    Some(requests) => requests.try_send(request).map_err(|_| QueueFull),
                    None => Ok(()),
                }
            }
            () = until(deadline) => {
                // Dropped, which tells the other end that there was no answer.
                self.client.expire(now());
                Ok(())
            }
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
