//! `traceparent` of a tunnelled connection: made at random, parsed strictly, used for logs only.

use std::fmt;

/// Version 00 trace context: trace id, parent id, flags. See W3C Trace Context, section 3.2.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

/// Length of the text form: 2 + 1 + 32 + 1 + 16 + 1 + 2.
const TEXT_BYTES: usize = 55;

impl TraceParent {
    /// A fresh context with random ids and flags 00; `random` returns 64 uniform bits.
    pub fn random(random: &mut dyn FnMut() -> u64) -> Self {
        let high = u128::from(random()) << 64;
        Self {
            trace_id: high | u128::from(random()),
            parent_id: random(),
            flags: 0,
        }
    }

    /// Parses exactly 55 characters in four groups of hexadecimal digits, `00-<32>-<16>-<2>`.
    /// Anything else is `None`: the caller makes a fresh one.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != TEXT_BYTES {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        let mut groups = text.split('-');
        let mut group = |digits: usize| {
            let group = groups.next()?;
            let hex = group.bytes().all(|byte| byte.is_ascii_hexdigit());
            (group.len() == digits && hex).then_some(group)
        };
        let version = group(2)?;
        let (trace_id, parent_id, flags) = (group(32)?, group(16)?, group(2)?);
        if groups.next().is_some() || version.eq_ignore_ascii_case("ff") {
            return None;
        }
        Some(Self {
            trace_id: u128::from_str_radix(trace_id, 16).ok()?,
            parent_id: u64::from_str_radix(parent_id, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        })
    }

    /// The trace id in 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            parent_id,
            flags,
        } = self;
        write!(f, "00-{trace_id:032x}-{parent_id:016x}-{flags:02x}")
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceParent({self})")
    }
}
