//! `traceparent` of a tunnelled connection: made at random, parsed strictly, used for logs and spans only.

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

    /// Trace id and parent id.
    #[must_use]
    pub const fn ids(&self) -> (u128, u64) {
        (self.trace_id, self.parent_id)
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

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn text_form_survives_a_round_trip() {
        let parsed = TraceParent::parse(TEXT.as_bytes()).unwrap();
        assert_eq!(parsed.to_string(), TEXT);
        assert_eq!(parsed.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn a_fresh_one_has_55_characters_and_flags_00() {
        let mut next = 0;
        let fresh = TraceParent::random(&mut || {
            next += 1;
            next
        });
        let text = fresh.to_string();
        assert_eq!(
            text,
            "00-00000000000000010000000000000002-0000000000000003-00"
        );
        assert_eq!(TraceParent::parse(text.as_bytes()), Some(fresh));
    }

    #[test]
    fn anything_but_four_hexadecimal_groups_is_absent() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
            // 55 characters, too few or too many groups.
            "00-4bf92f3577b34da6a3ce929d0e0e4736000f067aa0ba902b7-01",
            "0004bf92f3577b34da6a3ce929d0e0e4736000f067aa0ba902b7001",
            "00-4bf92f3577b34da6-3ce929d0e0e4736-00f067aa0ba902b7-01",
            // Groups of the wrong size, or not hexadecimal.
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text}");
        }
        let mut bytes = TEXT.as_bytes().to_vec();
        bytes[10] = 0xff;
        assert_eq!(TraceParent::parse(&bytes), None);
    }
}
