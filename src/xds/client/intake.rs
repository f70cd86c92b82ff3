//! One response on its way into the state: converted slice by slice, then booked.

use std::sync::Arc;
use std::vec;

use bytes::Bytes;

use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use crate::snapshot::builder::Change;
use crate::xds::convert::{self, AddressResource, Interner, Rejected};
use crate::xds::resource::{RESOURCE_NAME_BYTES_MAX, ResourceType};

/// Most resources converted at a time: about 2 ms of work.
const SLICE_RESOURCES_MAX: usize = 500;
/// Most bytes converted at a time, unless one resource alone has more.
const SLICE_BYTES_MAX: usize = 512 * 1024;

/// What a response changed, as received.
#[derive(Clone, Debug)]
pub struct Received {
    /// Type.
    pub kind: ResourceType,
    /// Names and contents of what was accepted.
    pub accepted: Vec<(Arc<str>, Bytes)>,
    /// Names of what is gone; after what was accepted.
    pub removed: Vec<Arc<str>>,
}

/// A response that is being applied.
#[derive(Debug)]
pub struct Intake {
    kind: Option<ResourceType>,
    type_url: String,
    nonce: String,
    /// Stream it came on.
    stream: Option<u64>,
    resources: vec::IntoIter<Resource>,
    removed: vec::IntoIter<String>,
    texts: Interner,
    bytes: usize,
    accepted: Vec<(Arc<str>, Arc<str>)>,
    gone: Vec<Arc<str>>,
    aliases: Vec<String>,
    rejected: Vec<(String, Rejected)>,
    /// Contents of what was accepted, if somebody wants them.
    kept: Option<Vec<(Arc<str>, Bytes)>>,
}

/// What the books of the client need of a response.
pub(super) struct Booking {
    pub(super) kind: Option<ResourceType>,
    pub(super) reply: DeltaDiscoveryRequest,
    pub(super) stream: Option<u64>,
    pub(super) accepted: Vec<(Arc<str>, Arc<str>)>,
    pub(super) removed: Vec<Arc<str>>,
    pub(super) aliases: Vec<String>,
    pub(super) rejected: Vec<(String, Rejected)>,
    pub(super) kept: Option<Vec<(Arc<str>, Bytes)>>,
}

impl Intake {
    pub(super) fn new(response: DeltaDiscoveryResponse, stream: Option<u64>, keep: bool) -> Self {
        let kind = ResourceType::from_url(&response.type_url);
        let (mut resources, removed) = match kind {
            Some(_) => (response.resources, response.removed_resources),
            None => (Vec::new(), Vec::new()),
        };
        if kind == Some(ResourceType::Address) {
            // As in one push, what workloads bring must meet the service as it will be.
            resources.sort_by_cached_key(|resource| {
                let body = resource.resource.as_ref();
                !body.is_some_and(|body| convert::looks_like_service(&body.value))
            });
        }
        Self {
            kind,
            type_url: response.type_url,
            nonce: response.nonce,
            stream,
            resources: resources.into_iter(),
            removed: removed.into_iter(),
            texts: Interner::default(),
            bytes: 0,
            accepted: Vec::new(),
            gone: Vec::new(),
            aliases: Vec::new(),
            rejected: Vec::new(),
            kept: keep.then(Vec::new),
        }
    }

    /// Type of its resources; none if it is one we do not know (then there is nothing to apply).
    #[must_use]
    pub const fn kind(&self) -> Option<ResourceType> {
        self.kind
    }

    /// Type as the server wrote it.
    #[must_use]
    pub fn type_url(&self) -> &str {
        &self.type_url
    }

    /// Bytes of the resources taken so far.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it came on a stream, and not from a cache.
    #[must_use]
    pub const fn is_from_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether any resource was taken or removed so far.
    #[must_use]
    pub fn has_effect(&self) -> bool {
        !self.accepted.is_empty() || !self.gone.is_empty()
    }

    /// Converts the next part: updates first, removals after them; none when all is done. The part
    /// may be empty if everything in it was refused.
    pub fn next_change(&mut self) -> Option<Change> {
        let mut change = Change::default();
        if self.resources.len() > 0 {
            let bytes_max = self.bytes + SLICE_BYTES_MAX;
            let mut taken = 0;
            while taken < SLICE_RESOURCES_MAX && self.bytes < bytes_max {
                let Some(resource) = self.resources.next() else {
                    break;
                };
                self.take(resource, &mut change);
                taken += 1;
            }
            return Some(change);
        }
        if self.removed.len() == 0 {
            return None;
        }
        for name in self.removed.by_ref().take(SLICE_RESOURCES_MAX) {
            let name: Arc<str> = name.into();
            self.gone.push(Arc::clone(&name));
            match self.kind {
                Some(ResourceType::Address) => change.removed_addresses.push(name),
                Some(ResourceType::Authorization) => change.removed_policies.push(name),
                None => {}
            }
        }
        Some(change)
    }

    fn take(&mut self, resource: Resource, change: &mut Change) {
        let body = resource.resource.as_ref();
        self.bytes += body.map_or(0, |body| body.value.len());
        match self.convert(&resource, change) {
            Ok(name) => {
                let version = self.texts.share(&resource.version);
                if let (Some(kept), Some(body)) = (&mut self.kept, resource.resource) {
                    kept.push((Arc::clone(&name), body.value));
                }
                self.accepted.push((name, version));
                self.aliases.extend(resource.aliases);
            }
            Err(why) => {
                let mut name = resource.name;
                let end = name.floor_char_boundary(RESOURCE_NAME_BYTES_MAX);
                name.truncate(end);
                self.rejected.push((name, why));
            }
        }
    }

    /// Adds the resource to the change; its name.
    fn convert(&mut self, resource: &Resource, change: &mut Change) -> Result<Arc<str>, Rejected> {
        check_name(&resource.name)?;
        let body = resource.resource.as_ref().ok_or(Rejected::NoContent)?;
        match self.kind {
            Some(ResourceType::Address) => match convert::address(&body.value, &mut self.texts)? {
                AddressResource::Workload(workload) => {
                    // Mostly the name is the uid: one copy serves both.
                    let uid = Arc::clone(&workload.uid);
                    change.workloads.push(*workload);
                    if *uid == *resource.name {
                        return Ok(uid);
                    }
                }
                AddressResource::Service(service) => change.services.push(*service),
            },
            Some(ResourceType::Authorization) => {
                let name: Arc<str> = resource.name.as_str().into();
                let policy = convert::authorization(&body.value)?;
                change.policies.push((Arc::clone(&name), policy));
                return Ok(name);
            }
            None => {}
        }
        Ok(resource.name.as_str().into())
    }

    pub(super) fn into_booking(self) -> Booking {
        Booking {
            kind: self.kind,
            reply: DeltaDiscoveryRequest {
                type_url: self.type_url,
                response_nonce: self.nonce,
                ..DeltaDiscoveryRequest::default()
            },
            stream: self.stream,
            accepted: self.accepted,
            removed: self.gone,
            aliases: self.aliases,
            rejected: self.rejected,
            kept: self.kept,
        }
    }
}

fn check_name(name: &str) -> Result<(), Rejected> {
    if name.is_empty() {
        return Err(Rejected::BadKey {
            field: "resource name",
            value: String::new(),
        });
    }
    if name.len() > RESOURCE_NAME_BYTES_MAX {
        return Err(Rejected::NameTooLong {
            bytes: name.len(),
            bytes_max: RESOURCE_NAME_BYTES_MAX,
        });
    }
    Ok(())
}
