//! Flows, workloads and an output that remembers, for tests.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::flow::{Direction, Flow, Party};
use super::line::{Level, LineFormat};
use super::log_writer::{LogWriter, WriterOptions};
use crate::model::addr::Authority;
use crate::model::identity::Identity;
use crate::model::service::Service;
use crate::model::workload::{Locality, Workload};

/// Sends what is written, piece by piece.
pub(crate) struct Output(Sender<Vec<u8>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The test may have seen enough.
        drop(self.0.send(bytes.to_vec()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines a writer was given.
pub(crate) struct Lines(Receiver<Vec<u8>>);

impl Lines {
    /// Everything written once the writer has stopped.
    pub(crate) fn all(&self, writer: LogWriter) -> Vec<String> {
        assert!(writer.stop(Duration::from_secs(10)), "the writer ends");
        let text: Vec<u8> = self.0.try_iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// A writer into memory.
pub(crate) fn writer(format: LineFormat, access_level: Level) -> (LogWriter, Lines) {
    let (sender, receiver) = channel();
    let options = WriterOptions {
        out: Box::new(Output(sender)),
        format,
        access_level,
    };
    (LogWriter::start(options).unwrap(), Lines(receiver))
}

/// A workload whose values all tell where they come from.
pub(crate) fn workload(name: &str) -> Workload {
    Workload {
        uid: format!("uid-{name}").into(),
        name: format!("{name}-0").into(),
        namespace: "a".into(),
        trust_domain: "cluster.local".into(),
        service_account: name.into(),
        cluster_id: "Kubernetes".into(),
        workload_name: name.into(),
        workload_type: "deployment".into(),
        canonical_name: format!("{name}-app").into(),
        canonical_revision: "v1".into(),
        locality: Locality {
            region: "r".into(),
            zone: "z".into(),
            subzone: "".into(),
        },
        ..Workload::default()
    }
}

pub(crate) fn identity(account: &str) -> Arc<Identity> {
    Arc::new(Identity::new("cluster.local", "a", account))
}

pub(crate) fn service() -> Arc<Service> {
    Arc::new(Service {
        name: "s".into(),
        namespace: "a".into(),
        hostname: "s.a.svc.cluster.local".into(),
        ..Service::default()
    })
}

/// The client's connection of the contract's example line.
pub(crate) fn outbound() -> Flow {
    Flow {
        direction: Direction::Outbound,
        mutual_tls: true,
        source: Party {
            workload: Some(Arc::new(workload("client"))),
            identity: Some(identity("client")),
            baggage: None,
        },
        destination: Party {
            workload: Some(Arc::new(workload("server"))),
            ..Party::default()
        },
        service: Some(service()),
        src_addr: "10.1.0.2:40000".parse().unwrap(),
        dst_addr: "10.1.0.3:15008".parse().unwrap(),
        hbone_addr: Some(Authority::Address("10.1.0.3:8080".parse().unwrap())),
        trace_id: None,
    }
}

/// The same connection as the server's node sees it.
pub(crate) fn inbound() -> Flow {
    Flow {
        direction: Direction::Inbound,
        ..outbound()
    }
}
