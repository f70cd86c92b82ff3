//! A certificate authority for tests that does what it is told, within the process or over TLS.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::*;
use crate::config::server::{RootSource, ServerAddress};
use crate::proto::ca::IstioCertificateResponse;
use crate::proto::ca::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use crate::tls::dev_pki::{Authority, Leaf};

/// What the authority does with a call.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Issues what was asked for, for this long.
    Issue(Duration),
    /// The same after a while.
    Slow(Duration),
    /// Never answers.
    Hang,
    Refuse(Code),
    /// For another identity.
    Other(&'static str),
    /// For another key.
    OtherKey,
    /// These elements instead of a chain; `LEAF` and `ROOT` stand for the right ones.
    Elements(Vec<String>),
    /// Below two authorities, with a second root.
    Deep,
    /// Already expired, or not valid yet.
    Valid(i64, i64),
}

/// One call it got.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) identity: Identity,
    pub(super) impersonated: Option<String>,
    pub(super) seconds: i64,
    pub(super) headers: MetadataMap,
}

#[expect(clippy::disallowed_types, reason = "the service has to be Send")]
type Guarded<T> = std::sync::Mutex<T>;

/// The authority. Time is the runtime's, so that a test can make it pass.
pub(super) struct Fake {
    pub(super) authority: Authority,
    started: (Instant, SystemTime),
    script: Guarded<VecDeque<Act>>,
    usual: Guarded<Act>,
    calls: Guarded<Vec<Call>>,
}

impl Fake {
    pub(super) fn new() -> Arc<Self> {
        let now = SystemTime::now();
        Arc::new(Self {
            authority: Authority::new("mesh", now).unwrap(),
            started: (Instant::now(), now),
            script: Guarded::default(),
            usual: Guarded::new(Act::Issue(Duration::from_hours(24))),
            calls: Guarded::default(),
        })
    }

    pub(super) fn now(&self) -> SystemTime {
        self.started.1 + self.started.0.elapsed()
    }

    /// What it does with the next calls.
    pub(super) fn next(&self, acts: impl IntoIterator<Item = Act>) {
        self.script.lock().unwrap().extend(acts);
    }

    /// What it does with all others.
    pub(super) fn usually(&self, act: Act) {
        *self.usual.lock().unwrap() = act;
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// Service accounts in the order of their calls.
    pub(super) fn order(&self) -> Vec<String> {
        let calls = self.calls();
        let names = calls.iter().map(|call| &call.identity.service_account);
        names.map(ToString::to_string).collect()
    }

    fn sign(
        &self,
        authority: &Authority,
        request: &str,
        identity: &Identity,
        life: Duration,
    ) -> String {
        let now = self.now();
        let leaf = Leaf::new(identity, now).valid(now, now + life);
        authority.sign_request(request, &leaf).unwrap()
    }

    fn chain(&self, act: &Act, csr: &str, identity: &Identity) -> Vec<String> {
        let day = Duration::from_hours(24);
        let root = self.authority.root_pem().to_owned();
        let leaf = |life| self.sign(&self.authority, csr, identity, life);
        match act {
            Act::Issue(life) => vec![leaf(*life), root],
            Act::Slow(_) | Act::Hang | Act::Refuse(_) => vec![leaf(day), root],
            Act::Other(name) => {
                let other = Identity::new("cluster.local", "default", *name);
                vec![self.sign(&self.authority, csr, &other, day), root]
            }
            Act::OtherKey => {
                let leaf = Leaf::new(identity, self.now());
                vec![self.authority.issue(&leaf).unwrap().leaf, root]
            }
            Act::Elements(elements) => {
                let element = |text: &String| match text.as_str() {
                    "LEAF" => leaf(day),
                    "ROOT" => root.clone(),
                    other => other.to_owned(),
                };
                elements.iter().map(element).collect()
            }
            Act::Deep => {
                let now = self.now();
                let upper = self.authority.intermediate("upper", now).unwrap();
                let lower = upper.intermediate("istiod", now).unwrap();
                let second = Authority::new("second", now).unwrap();
                // Only the first certificate of an element counts.
                let lower_pem = lower.certificate_pem() + second.root_pem();
                vec![
                    self.sign(&lower, csr, identity, day),
                    lower_pem,
                    upper.certificate_pem(),
                    root + second.root_pem(),
                ]
            }
            Act::Valid(from, until) => {
                let shift = |seconds: i64| {
                    let distance = Duration::from_secs(seconds.unsigned_abs());
                    if seconds < 0 {
                        self.now() - distance
                    } else {
                        self.now() + distance
                    }
                };
                let leaf = Leaf::new(identity, self.now()).valid(shift(*from), shift(*until));
                vec![self.authority.sign_request(csr, &leaf).unwrap(), root]
            }
        }
    }
}

/// The identity a request is for.
fn requested(csr: &str) -> Identity {
    let (_, pem) = x509_parser::pem::parse_x509_pem(csr.as_bytes()).unwrap();
    let (_, csr) = X509CertificationRequest::from_der(&pem.contents).unwrap();
    let extension = csr.requested_extensions().unwrap().next().cloned();
    let Some(ParsedExtension::SubjectAlternativeName(names)) = extension else {
        panic!("no names");
    };
    let GeneralName::URI(uri) = names.general_names[0] else {
        panic!("no URI");
    };
    uri.parse().unwrap()
}

/// The fake as a service.
#[derive(Clone)]
pub(super) struct Service(pub(super) Arc<Fake>);

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let headers = request.metadata().clone();
        let request = request.into_inner();
        let identity = requested(&request.csr);
        let field = |metadata: &Struct| metadata.fields.get(IMPERSONATED).cloned();
        let impersonated = request.metadata.as_ref().map(|metadata| {
            match field(metadata).and_then(|value| value.kind) {
                Some(Kind::StringValue(text)) => text,
                other => panic!("{other:?}"),
            }
        });
        let call = Call {
            identity: identity.clone(),
            impersonated,
            seconds: request.validity_duration,
            headers,
        };
        self.0.calls.lock().unwrap().push(call);
        let act = self.0.script.lock().unwrap().pop_front();
        let act = act.unwrap_or_else(|| self.0.usual.lock().unwrap().clone());
        match &act {
            Act::Slow(time) => tokio::time::sleep(*time).await,
            Act::Hang => pending().await,
            Act::Refuse(code) => return Err(Status::new(*code, "told to refuse")),
            Act::Issue(_)
            | Act::Other(_)
            | Act::OtherKey
            | Act::Elements(_)
            | Act::Deep
            | Act::Valid(..) => {}
        }
        let cert_chain = self.0.chain(&act, &request.csr, &identity);
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

/// Reaches the fake within the process.
pub(super) struct InProcess {
    pub(super) fake: Arc<Fake>,
    pub(super) connects: Cell<usize>,
    pub(super) unreachable: Cell<bool>,
    /// Root file to look at.
    pub(super) roots: RefCell<RootSource>,
}

impl InProcess {
    pub(super) fn new(fake: &Arc<Fake>) -> Self {
        Self {
            fake: Arc::clone(fake),
            connects: Cell::new(0),
            unreachable: Cell::new(false),
            roots: RefCell::new(RootSource::System),
        }
    }
}

impl Reach for std::rc::Rc<InProcess> {
    type Answer = Body;
    type Service = IstioCertificateServiceServer<Service>;

    async fn connect(&self, _: Option<&Credentials>) -> Result<Self::Service, ConnectError> {
        self.connects.set(self.connects.get() + 1);
        if self.unreachable.get() {
            let server = ServerAddress::Unix("/ca".into());
            return Err(ConnectError::TlsTimeout { server });
        }
        Ok(IstioCertificateServiceServer::new(Service(Arc::clone(
            &self.fake,
        ))))
    }

    async fn roots(&self) -> Stamp {
        let source = self.roots.borrow().clone();
        Stamp::of(&source).await
    }

    fn is_closed(_: &Self::Service) -> bool {
        false
    }
}
