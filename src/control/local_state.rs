//! The local state file: workloads, services and policies from YAML (spec: local-config.md 1).
//!
//! A document is taken whole or not at all: what cannot be read refuses it, so that no policy is
//! ever weaker than written. Unlike in the reference, a workload of a file keeps its list of
//! services, so that inbound connections are booked on them.

mod check;
mod diff;
mod error;
mod raw;
mod scalar;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

pub use diff::change_from;
pub use error::{LocalStateError, Place};

use crate::model::policy::Policy;
use crate::model::service::Service;
use crate::model::workload::Workload;

/// Largest state file. 100,000 workloads take about 60 MB.
pub const STATE_FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most nodes (scalars, lists, mappings) and parser events of a document, aliases replayed: more
/// than a file of the largest size can hold honestly, less than what would exhaust memory.
const STATE_FILE_NODES_MAX: usize = 64 * 1024 * 1024;

/// Content of a state file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalState {
    /// Workloads; their uids differ.
    pub workloads: Vec<Workload>,
    /// Services; their keys differ.
    pub services: Vec<Service>,
    /// Policies by key `namespace/name`; keys differ.
    pub policies: Vec<(Arc<str>, Policy)>,
    /// What is allowed but hardly meant, to be logged.
    pub warnings: Vec<LocalStateWarning>,
}

/// Something that is allowed but hardly meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalStateWarning {
    /// Where.
    pub place: Place,
    /// What, and what follows from it.
    pub text: String,
}

impl fmt::Display for LocalStateWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Where the local state comes from (`LOCAL_XDS_PATH`, `LOCAL_XDS`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalSource {
    /// A file, which may be watched and loaded again.
    Path(PathBuf),
    /// The document itself.
    Inline(String),
}

impl LocalSource {
    /// Reads and parses it.
    ///
    /// # Errors
    /// The file cannot be read, or see [`parse`].
    pub fn load(&self) -> Result<LocalState, LocalStateError> {
        match self {
            Self::Inline(text) => parse(text, "LOCAL_XDS"),
            Self::Path(path) => {
                let origin: Arc<str> = path.display().to_string().into();
                let text = read(path, &origin)?;
                parse(&text, &origin)
            }
        }
    }
}

fn read(path: &PathBuf, origin: &Arc<str>) -> Result<String, LocalStateError> {
    let unreadable = |source| LocalStateError::Unreadable {
        origin: Arc::clone(origin),
        source,
    };
    // Opening a pipe would wait for its writer: look first.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        let origin = Arc::clone(origin);
        return Err(LocalStateError::NotAFile { origin });
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    // One byte more than allowed tells a file that is too large from one that just fits.
    let mut limited = file.take(STATE_FILE_BYTES_MAX + 1);
    let bytes = limited.read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(bytes).is_ok_and(|bytes| bytes > STATE_FILE_BYTES_MAX) {
        return Err(LocalStateError::TooLarge {
            origin: Arc::clone(origin),
            bytes_max: STATE_FILE_BYTES_MAX,
        });
    }
    Ok(text)
}

/// Parses a document; `origin` names it in errors.
///
/// # Errors
/// The first thing found that the specification does not allow, with its position.
pub fn parse(text: &str, origin: &str) -> Result<LocalState, LocalStateError> {
    let origin: Arc<str> = origin.into();
    if is_empty(text) {
        let place = Place {
            origin,
            line: 1,
            column: 1,
        };
        return Err(LocalStateError::Empty { place });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: STATE_FILE_NODES_MAX,
            max_nodes: STATE_FILE_NODES_MAX,
            max_total_scalar_bytes: usize::try_from(STATE_FILE_BYTES_MAX).unwrap_or(usize::MAX),
        },
        strict_booleans: true,
        reject_tagged_field_names: true,
        emit_comments: false,
        with_snippet: false,
    };
    let document = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| LocalStateError::from_yaml(&origin, &error))?;
    check::Check::new(origin).run(document)
}

/// Nothing but comments and document markers.
fn is_empty(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    lines.all(|line| line.is_empty() || line.starts_with('#') || line == "---" || line == "...")
}

#[cfg(test)]
mod tests;
