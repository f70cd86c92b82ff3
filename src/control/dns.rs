//! The DNS proxy: answers names of services from the snapshot and forwards everything else
//! (spec: dns-socks.md A).
//!
//! [`Proxy`] answers for one client, a workload or all of a host, and serves any bound sockets. A query
//! about the mesh is answered at once; one that has to wait, for the workload's record or for a name
//! server, becomes a `Pending`, of which there is a bounded number. Messages are hickory's; no other
//! module sees its types.

mod forward;
pub mod hostnames;
mod message;
mod name_servers;
mod names;
mod places;
mod report;
mod serve;
mod settings;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::sync::watch;

use crate::config::limits::DNS_TTL_SECONDS;
use crate::model::addr::NetworkAddress;
use crate::model::workload::Workload;
use crate::snapshot::exchange::Subscription;
use crate::snapshot::{Generation, Snapshot};
use forward::{Forwarder, Origin, Outcome};
use message::{Incoming, Question};
use names::{Family, look_up};
use places::Place;
use report::{count, count_seconds, finish, limit_hit};

pub use forward::ResolverError;
pub use name_servers::{NameServers, ResolvConfError};
pub use places::Places;
pub use serve::{BindOptions, bind, serve_tcp, serve_udp};
pub use settings::{Client, Search, Settings};

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// In a connection.
    Tcp,
}

impl Transport {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Answers queries.
#[derive(Debug)]
pub struct Proxy {
    settings: Settings,
    state: Subscription<Snapshot>,
    /// Beats with each publication.
    published: watch::Receiver<Generation>,
    forwarder: Forwarder,
    own: Places,
}

/// What becomes of a message.
enum Step {
    /// It is answered, or deserves no answer.
    Done(Option<Vec<u8>>),
    /// It has to wait.
    Later(Box<Pending>),
}

/// A query that has to wait. Dropping it leaves it unanswered.
struct Pending {
    proxy: Arc<Proxy>,
    question: Question,
    from: SocketAddr,
    transport: Transport,
    _place: Place,
}

/// A reply with what the log says about it.
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    additionals: Vec<Record>,
    result: String,
    endpoints: usize,
}

impl Proxy {
    /// Answers from `state`, whose publications `published` tells of, and asks `name_servers` for the
    /// rest.
    ///
    /// # Errors
    /// When the resolver refuses its settings.
    pub fn new(
        settings: Settings,
        state: Subscription<Snapshot>,
        published: watch::Receiver<Generation>,
        name_servers: &NameServers,
    ) -> Result<Self, ResolverError> {
        Ok(Self {
            forwarder: Forwarder::new(
                name_servers,
                Origin {
                    mark: settings.packet_mark,
                    namespace: settings.namespace.as_ref().map(Arc::downgrade),
                },
            )?,
            own: match settings.namespace {
                Some(_) => Places::of_pod(),
                None => Places::default(),
            },
            settings,
            state,
            published,
        })
    }

    /// Takes a message in.
    fn take(self: &Arc<Self>, bytes: &[u8], from: SocketAddr, transport: Transport) -> Step {
        let question = match message::read(bytes) {
            Incoming::Ignored => return Step::Done(None),
            Incoming::Refused(reply) => return Step::Done(message::encode(&reply, u16::MAX)),
            Incoming::Query(question) => question,
        };
        if let Some(workload) = self.workload(from.ip())
            && let Some(reply) = self.mesh_reply(&question, &workload)
        {
            count("istio_dns_requests", &question, transport, Some(&workload));
            return Step::Done(finish(&question, transport, Some(&workload), reply));
        }
        match Place::pending(&self.own, &self.settings.of_node) {
            Some(place) => Step::Later(Box::new(Pending {
                proxy: Arc::clone(self),
                question,
                from,
                transport,
                _place: place,
            })),
            None => {
                limit_hit("pending");
                count("istio_dns_requests", &question, transport, None);
                let reply = Reply::failed("too many queries wait");
                Step::Done(finish(&question, transport, None, reply))
            }
        }
    }

    /// The workload that asks, if it is known now.
    fn workload(&self, from: IpAddr) -> Option<Arc<Workload>> {
        let snapshot = self.state.load();
        match &self.settings.client {
            Client::Workload(info) => snapshot.local_workload(info).cloned(),
            Client::BySource(listed) => {
                let from = from.to_canonical();
                // No workload lists port 0.
                if let Some(info) = listed.at(SocketAddr::new(from, 0)) {
                    return snapshot.local_workload(info).cloned();
                }
                let address = NetworkAddress {
                    network: Arc::clone(&self.settings.network),
                    ip: from,
                };
                let workload = snapshot.workload_by_address(&address)?;
                snapshot.is_local(workload).then(|| Arc::clone(workload))
            }
        }
    }

    /// The same, waiting a moment for the record of the one workload. An address that nobody owns is
    /// not waited for: it may never be anybody's.
    async fn workload_in_time(&self, from: IpAddr) -> Option<Arc<Workload>> {
        let mut published = self.published.clone();
        let known = async {
            loop {
                published.mark_unchanged();
                if let Some(workload) = self.workload(from) {
                    return Some(workload);
                }
                if matches!(self.settings.client, Client::BySource(_))
                    || published.changed().await.is_err()
                {
                    return None;
                }
            }
        };
        let wait = self.settings.workload_wait;
        tokio::time::timeout(wait, known).await.ok().flatten()
    }

    /// The reply for a name of the mesh.
    fn mesh_reply(&self, question: &Question, workload: &Workload) -> Option<Reply> {
        let family = family(question.record_type())?;
        let asker = self.settings.asker(workload);
        let mut random = |bound: u64| fastrand::u64(0..bound.max(1));
        let known = look_up(
            question.text()?,
            family,
            &asker,
            &self.state.load(),
            &mut random,
        )?;
        let result = match (known.family_suits, known.addresses.is_empty()) {
            (false, _) => "service does not support this record type",
            (true, true) => "no records",
            (true, false) => "success",
        };
        let mut answers = Vec::with_capacity(known.addresses.len() + 1);
        let asked = question.name().to_lowercase();
        let owner = match known.alias_of {
            Some(alias) => {
                let owner = Name::from_ascii(format!("{alias}.")).ok()?;
                let data = RData::CNAME(CNAME(owner.clone()));
                answers.push(Record::from_rdata(asked, DNS_TTL_SECONDS, data));
                owner
            }
            None => asked,
        };
        let endpoints = known.addresses.len();
        answers.extend(known.addresses.into_iter().map(|ip| {
            let data = match ip {
                IpAddr::V4(ip) => RData::A(A(ip)),
                IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
            };
            Record::from_rdata(owner.clone(), DNS_TTL_SECONDS, data)
        }));
        Some(Reply {
            code: ResponseCode::NoError,
            authoritative: true,
            answers,
            additionals: Vec::new(),
            result: result.to_owned(),
            endpoints,
        })
    }
}

/// The family a type asks for; other types are no business of ours.
fn family(record_type: RecordType) -> Option<Family> {
    let families = [(RecordType::A, Family::V4), (RecordType::AAAA, Family::V6)];
    let found = families.iter().find(|(asked, _)| *asked == record_type);
    found.map(|(_, family)| *family)
}

impl Pending {
    /// Waits for what is missing and answers.
    async fn answer(self) -> Option<Vec<u8>> {
        let Self {
            proxy,
            question,
            from,
            transport,
            ..
        } = self;
        let workload = proxy.workload_in_time(from.ip()).await;
        let workload = workload.as_deref();
        count("istio_dns_requests", &question, transport, workload);
        let reply = match workload {
            None => Reply::failed("unknown source"),
            Some(workload) => match proxy.mesh_reply(&question, workload) {
                Some(reply) => reply,
                None => forwarded(&proxy.forwarder, &question, transport, workload).await,
            },
        };
        finish(&question, transport, workload, reply)
    }
}

/// The reply of a name server.
async fn forwarded(
    forwarder: &Forwarder,
    question: &Question,
    transport: Transport,
    workload: &Workload,
) -> Reply {
    let workload = Some(workload);
    count("istio_dns_upstream_requests", question, transport, workload);
    let started = tokio::time::Instant::now();
    let outcome = forwarder
        .forward(question.name(), question.record_type())
        .await;
    count_seconds(question, transport, workload, started.elapsed());
    match outcome {
        Outcome::Answered {
            answers,
            additionals,
        } => Reply {
            code: ResponseCode::NoError,
            authoritative: false,
            endpoints: answers.len(),
            answers,
            additionals,
            result: "forwarded".to_owned(),
        },
        Outcome::Failed { code, why } => {
            count("istio_dns_upstream_failures", question, transport, workload);
            Reply {
                code,
                result: format!("forwarding failed ({why})"),
                ..Reply::failed("")
            }
        }
    }
}

impl Reply {
    fn failed(why: &str) -> Self {
        Self {
            code: ResponseCode::ServFail,
            authoritative: false,
            answers: Vec::new(),
            additionals: Vec::new(),
            result: why.to_owned(),
            endpoints: 0,
        }
    }
}

#[cfg(test)]
mod tests;
