//! Why a resource was refused; the text goes back to the control plane.

/// The reason. The resource keeps its former state, if it had one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The envelope is empty.
    #[error("resource without content")]
    NoContent,
    /// The name in the envelope is longer than any real one.
    #[error("name of {bytes} bytes, at most {bytes_max} are taken")]
    NameTooLong {
        /// Its length.
        bytes: usize,
        /// Limit.
        bytes_max: usize,
    },
    /// The bytes are no such message.
    #[error("cannot be decoded: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// An Address that is neither workload nor service.
    #[error("address is neither a workload nor a service")]
    NoAddressType,
    /// A key is empty or cannot be told from another.
    #[error("`{value}` is no {field}")]
    BadKey {
        /// What it should be.
        field: &'static str,
        /// As received.
        value: String,
    },
    /// Bytes that are not an address.
    #[error("{field}: an address of {bytes} bytes, expected 4 or 16")]
    BadAddress {
        /// Where.
        field: &'static str,
        /// Length.
        bytes: usize,
    },
    /// A prefix length beyond the address.
    #[error("{field}: prefix length {length} for an address of {bits} bits")]
    BadPrefix {
        /// Where.
        field: &'static str,
        /// As received.
        length: u32,
        /// Most the family allows.
        bits: u8,
    },
    /// A number that stands for nothing we know.
    #[error("{field}: unknown value {value}")]
    UnknownValue {
        /// Where.
        field: &'static str,
        /// As received.
        value: i32,
    },
    /// A known value that is not supported or not meant to be used.
    #[error("{field}: {value} is not supported")]
    Unsupported {
        /// Where.
        field: &'static str,
        /// Its name.
        value: &'static str,
    },
    /// A gateway or waypoint that leads nowhere.
    #[error("{field}: no destination")]
    NoDestination {
        /// Where.
        field: &'static str,
    },
    /// A string condition without a condition.
    #[error("{field}: a string match with nothing set")]
    EmptyMatch {
        /// Where.
        field: &'static str,
    },
    /// A port of a policy beyond 65535.
    #[error("{field}: {value} is no port")]
    BadPort {
        /// Where.
        field: &'static str,
        /// As received.
        value: u32,
    },
}
