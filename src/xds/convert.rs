//! Resources as received → model values, or the reason why not (spec: xds.md 4, routing.md 1).
//!
//! A resource is taken whole or not at all. The reference drops elements of policies that it cannot
//! read, and so may allow more than was written; here they refuse their policy.

mod address;
mod authorization;
mod error;
mod intern;
mod scalar;
mod service;
mod workload;

use prost::Message as _;

pub use error::Rejected;
pub use intern::Interner;

use crate::model::policy::Policy;
use crate::model::service::Service;
use crate::model::workload::Workload;
use crate::proto;

/// Content of an Address resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressResource {
    /// A workload.
    Workload(Box<Workload>),
    /// A service.
    Service(Box<Service>),
}

/// Reads an Address; equal texts of one response share their memory through `texts`.
///
/// # Errors
/// Why the resource is refused.
pub fn address(bytes: &[u8], texts: &mut Interner) -> Result<AddressResource, Rejected> {
    let message = proto::workload::Address::decode(bytes)?;
    match message.r#type.ok_or(Rejected::NoAddressType)? {
        proto::workload::address::Type::Workload(raw) => {
            let workload = workload::workload(raw, texts)?;
            Ok(AddressResource::Workload(Box::new(workload)))
        }
        proto::workload::address::Type::Service(raw) => {
            let service = service::service(raw, texts)?;
            Ok(AddressResource::Service(Box::new(service)))
        }
    }
}

/// Reads an Authorization.
///
/// # Errors
/// Why the resource is refused.
pub fn authorization(bytes: &[u8]) -> Result<Policy, Rejected> {
    authorization::policy(proto::security::Authorization::decode(bytes)?)
}

/// Whether an encoded Address holds a service, judged by its outermost fields alone. A wrong guess
/// about a malformed message only changes when it is refused.
#[must_use]
pub fn looks_like_service(mut bytes: &[u8]) -> bool {
    use prost::encoding::{DecodeContext, decode_key, skip_field};
    let mut service = false;
    while !bytes.is_empty() {
        let Ok((field, wire)) = decode_key(&mut bytes) else {
            break;
        };
        match field {
            1 => service = false,
            2 => service = true,
            _ => {}
        }
        if skip_field(wire, field, &mut bytes, DecodeContext::default()).is_err() {
            break;
        }
    }
    service
}

#[cfg(test)]
mod tests;
