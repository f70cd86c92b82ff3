//! Packets of the agent as requests, and our answers as packets (spec: zds.md 2). No I/O.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use prost::Message as _;

use super::session::Request;
use crate::model::workload::WorkloadInfo;
use crate::proto::zds::workload_request::Payload;
use crate::proto::zds::workload_response::Payload as Reply;
use crate::proto::zds::{self, Version, WorkloadRequest, WorkloadResponse, ZdsHello};

/// Why a packet is no request. Free texts the agent logs.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It did not fit, or its descriptors did not.
    #[error("the message was truncated")]
    Truncated,
    /// It is not the message it should be.
    #[error("cannot decode the message: {0}")]
    Decode(#[from] prost::DecodeError),
    /// None of the payloads we know.
    #[error("the message has no payload we know")]
    NoPayload,
    /// A workload without its namespace.
    #[error("No control message")]
    NoDescriptor,
    /// A descriptor with a message that has none.
    #[error("Unexpected control message")]
    UnexpectedDescriptor,
    /// More than one.
    #[error("{0} descriptors came with one message")]
    ManyDescriptors(usize),
    /// The descriptor cannot be looked at.
    #[error("cannot use the descriptor: {0}")]
    Descriptor(#[source] std::io::Error),
}

/// A request as it came, before its descriptor was looked at.
pub(super) fn parse(
    bytes: &[u8],
    truncated: bool,
    descriptors: Vec<OwnedFd>,
) -> Result<Request<OwnedFd>, ReadError> {
    if truncated {
        return Err(ReadError::Truncated);
    }
    let mut descriptors = descriptors.into_iter();
    let (descriptor, more) = (descriptors.next(), descriptors.len());
    if more > 0 {
        return Err(ReadError::ManyDescriptors(more + 1));
    }
    let payload = WorkloadRequest::decode(bytes)?.payload;
    let payload = payload.ok_or(ReadError::NoPayload)?;
    let without = |request| match &descriptor {
        None => Ok(request),
        Some(_) => Err(ReadError::UnexpectedDescriptor),
    };
    match payload {
        Payload::Keep(keep) => without(Request::Keep(keep.uid.into())),
        Payload::Del(del) => without(Request::Delete(del.uid.into())),
        Payload::SnapshotSent(_) => without(Request::SnapshotSent),
        Payload::Add(add) => Ok(Request::Add {
            uid: add.uid.into(),
            info: add.workload_info.map(info),
            namespace: descriptor.ok_or(ReadError::NoDescriptor)?,
        }),
    }
}

fn info(info: zds::WorkloadInfo) -> Arc<WorkloadInfo> {
    Arc::new(WorkloadInfo {
        name: info.name.into(),
        namespace: info.namespace.into(),
        service_account: info.service_account.into(),
    })
}

/// Our first packet.
pub(super) fn hello() -> Vec<u8> {
    let version = Version::V1.into();
    ZdsHello { version }.encode_to_vec()
}

/// What a request came to.
#[derive(Debug)]
pub(super) enum Ack {
    /// It was done.
    Success,
    /// The workload's listeners could not be made; that is tried again.
    NotStarted(String),
    /// It was no request.
    Unreadable(ReadError),
    /// It must not come now.
    Protocol(&'static str),
}

impl Ack {
    pub(super) fn encode(&self) -> Vec<u8> {
        let error = match self {
            Self::Success => String::new(),
            Self::NotStarted(error) => format!("failure to start proxy : {error}"),
            Self::Unreadable(error) => format!("failure to read message : {error}"),
            Self::Protocol(why) => format!("failure to process message : {why}"),
        };
        let payload = Some(Reply::Ack(zds::Ack { error }));
        WorkloadResponse { payload }.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn descriptors(count: usize) -> Vec<OwnedFd> {
        let open = |_| File::open("/dev/null").unwrap().into();
        (0..count).map(open).collect()
    }

    fn packet(payload: Payload) -> Vec<u8> {
        let payload = Some(payload);
        WorkloadRequest { payload }.encode_to_vec()
    }

    fn add(info: Option<zds::WorkloadInfo>) -> Vec<u8> {
        packet(Payload::Add(zds::AddWorkload {
            uid: "u1".into(),
            workload_info: info,
        }))
    }

    fn delete() -> Vec<u8> {
        packet(Payload::Del(zds::DelWorkload { uid: "u1".into() }))
    }

    #[test]
    fn bytes_on_the_wire_are_those_of_the_protocol() {
        assert_eq!(hello(), [0x08, 0x01]);
        assert_eq!(Ack::Success.encode(), [0x0a, 0x00]);
        let snapshot = packet(Payload::SnapshotSent(zds::SnapshotSent {}));
        assert_eq!(snapshot, [0x1a, 0x00]);
        assert_eq!(delete(), [0x12, 0x04, 0x12, 0x02, b'u', b'1']);
    }

    #[test]
    fn requests_are_read_with_the_descriptors_they_must_have() {
        let keep = packet(Payload::Keep(zds::KeepWorkload { uid: "u1".into() }));
        let snapshot = packet(Payload::SnapshotSent(zds::SnapshotSent {}));
        for (bytes, count, outcome) in [
            (add(None), 1, "ok"),
            (add(None), 0, "No control message"),
            (add(None), 2, "2 descriptors came with one message"),
            (delete(), 0, "ok"),
            (delete(), 1, "Unexpected control message"),
            (keep.clone(), 0, "ok"),
            (keep, 1, "Unexpected control message"),
            (snapshot.clone(), 0, "ok"),
            (snapshot, 1, "Unexpected control message"),
            (Vec::new(), 0, "the message has no payload we know"),
            (vec![0x22, 0x00], 0, "the message has no payload we know"),
        ] {
            let parsed = parse(&bytes, false, descriptors(count));
            let text = parsed.map_or_else(|error| error.to_string(), |_| "ok".to_owned());
            assert_eq!(text, outcome, "{bytes:?} with {count}");
        }
        assert!(matches!(
            parse(&[0xff], false, Vec::new()),
            Err(ReadError::Decode(_))
        ));
        assert!(matches!(
            parse(&delete(), true, Vec::new()),
            Err(ReadError::Truncated)
        ));
    }

    #[test]
    fn an_added_workload_keeps_its_uid_and_who_it_is() {
        let who = zds::WorkloadInfo {
            name: "web".into(),
            namespace: "shop".into(),
            service_account: "front".into(),
        };
        let Ok(Request::Add { uid, info, .. }) = parse(&add(Some(who)), false, descriptors(1))
        else {
            panic!("not an added workload");
        };
        assert_eq!(&*uid, "u1");
        assert_eq!(info.unwrap().to_string(), "front.shop (web)");
    }

    #[test]
    fn answers_tell_what_kind_of_failure_it_was() {
        for (ack, text) in [
            (Ack::NotStarted("x".into()), "failure to start proxy : x"),
            (
                Ack::Unreadable(ReadError::NoDescriptor),
                "failure to read message : No control message",
            ),
            (Ack::Protocol("y"), "failure to process message : y"),
        ] {
            let decoded = WorkloadResponse::decode(&*ack.encode()).unwrap();
            let Some(Reply::Ack(ack)) = decoded.payload else {
                panic!("no ack");
            };
            assert_eq!(ack.error, text);
        }
    }
}
