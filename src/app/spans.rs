//! Spans of connections, on their way from the shards to the collector.

use std::sync::Arc;
#[cfg(feature = "otlp")]
use std::time::Duration;

use crate::config::Config;
use crate::telemetry::{Hub, HubOptions, LogSink};

/// Time the last spans get when the node ends.
#[cfg(feature = "otlp")]
const LAST_EXPORT: Duration = Duration::from_secs(1);

/// The exporter, until the node ends.
#[derive(Debug, Default)]
pub(super) struct Exporting {
    #[cfg(feature = "otlp")]
    running: Option<(
        tokio::sync::oneshot::Sender<()>,
        tokio::task::JoinHandle<()>,
    )>,
}

/// The hub, and the exporter of its spans if there is a collector. Must run within a `LocalSet`.
#[cfg(feature = "otlp")]
pub(super) fn hub(config: &Config, options: HubOptions, log: LogSink) -> (Arc<Hub>, Exporting) {
    use crate::control::grpc::Server;
    use crate::control::otlp::Exporter;
    use crate::telemetry::spans;
    let hub = Hub::new(options, log);
    let Some(settings) = &config.spans else {
        return (Arc::new(hub), Exporting::default());
    };
    let (queue, ended) = spans::queue(settings.sampled_per_million);
    let server = Server {
        address: settings.collector.clone(),
        roots: settings.roots.clone(),
        alt_hostname: None,
        packet_mark: config.socket.packet_mark,
        tls: super::credentials::tls_options(config),
    };
    let collector = &settings.collector;
    tracing::info!(target: "corelane::app", %collector, "spans are sent to the collector");
    let exporter = Exporter::new(server, settings.service_name.clone(), ended);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let task = tokio::task::spawn_local(exporter.run(stopped));
    let running = Some((stop, task));
    (Arc::new(hub.with_spans(queue)), Exporting { running })
}

/// The hub; without the feature there are no spans, and no setting that asks for them.
#[cfg(not(feature = "otlp"))]
pub(super) fn hub(_: &Config, options: HubOptions, log: LogSink) -> (Arc<Hub>, Exporting) {
    (Arc::new(Hub::new(options, log)), Exporting::default())
}

impl Exporting {
    /// Sends what is left, if the collector takes it in time.
    pub(super) async fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some((stop, task)) = self.running {
            drop(stop);
            let _too_slow = tokio::time::timeout(LAST_EXPORT, task).await;
        }
    }
}
