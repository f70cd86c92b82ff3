//! Addresses in 127.0.0.0/8 that no other test of this machine uses, for tests without namespaces.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

static BLOCKS_TAKEN: AtomicU32 = AtomicU32::new(0);

/// A block of 256 loopback addresses of one test.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    third: [u8; 3],
}

impl Block {
    /// Takes a block: the second octet tells processes apart, the third the tests of one process.
    #[must_use]
    pub fn take() -> Self {
        let number = BLOCKS_TAKEN.fetch_add(1, Ordering::Relaxed);
        let process = 16 + u8::try_from(std::process::id() % 224).expect("below 224");
        let test = u8::try_from(number % 256).expect("below 256");
        Self {
            third: [127, process, test],
        }
    }

    /// One address of the block.
    #[must_use]
    pub const fn ip(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.third[0], self.third[1], self.third[2], last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap() {
        let (a, b) = (Block::take(), Block::take());
        assert_ne!(a.ip(1), b.ip(1));
        assert!(a.ip(1).is_loopback() && b.ip(255).is_loopback());
    }
}
