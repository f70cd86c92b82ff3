//! Receive buffers a shard lends: filled in place, handed on as [`Bytes`] without a copy, and used
//! again once the last reader has let go.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;

/// Size of a block: what one receive of a TLS session brings at most, and still within a core's
/// second-level cache beside its neighbours.
pub const BLOCK_BYTES: usize = 256 * 1024;
/// Blocks a thread keeps. Under load a tunnel's reader and a few relays use them in turn; more than
/// this are allocated and freed as needed.
const BLOCKS_KEPT_MAX: usize = 8;

type Memory = Arc<Box<[u8]>>;

thread_local! {
    static KEPT: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
}

/// A block nobody else sees.
#[derive(Debug)]
pub struct Block {
    memory: Memory,
}

/// What [`Bytes`] keeps alive.
struct Shared(Memory);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Block {
    /// A block whose readers are done, or a new one.
    #[must_use]
    pub fn take() -> Self {
        let kept = KEPT.with_borrow_mut(|kept| {
            let free = kept
                .iter()
                .rposition(|memory| Arc::strong_count(memory) == 1)?;
            Some(kept.swap_remove(free))
        });
        let memory = kept.unwrap_or_else(|| Arc::new(vec![0; BLOCK_BYTES].into_boxed_slice()));
        Self { memory }
    }

    /// Where to receive.
    pub fn room(&mut self) -> &mut [u8] {
        // Nobody else holds the memory, by `take` and `fill`.
        Arc::get_mut(&mut self.memory).map_or(&mut [], |memory| memory)
    }

    /// Hands on the first `length` bytes. The block comes back by itself.
    #[must_use]
    pub fn fill(self, length: usize) -> Bytes {
        let bytes = Bytes::from_owner(Shared(Arc::clone(&self.memory))).slice(..length);
        self.give_back();
        bytes
    }

    /// Not needed after all.
    pub fn give_back(self) {
        KEPT.with_borrow_mut(|kept| {
            if kept.len() < BLOCKS_KEPT_MAX {
                kept.push(self.memory);
            } else if let Some(busy) = kept.iter_mut().find(|memory| Arc::strong_count(memory) > 1)
            {
                // Its readers free that one; this one comes back sooner.
                *busy = self.memory;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_once_its_last_reader_has_let_go() {
        let mut block = Block::take();
        block.room()[..5].copy_from_slice(b"hello");
        let at = block.room().as_ptr();
        let bytes = block.fill(5);
        let tail = bytes.slice(4..);
        assert_eq!(bytes, "hello");
        drop(bytes);
        let mut other = Block::take();
        assert_ne!(other.room().as_ptr(), at, "a reader still looks at it");
        drop(tail);
        other.give_back();
        let mut again = [Block::take(), Block::take()];
        assert!(again.iter_mut().any(|block| block.room().as_ptr() == at));
    }

    #[test]
    fn a_thread_keeps_a_bounded_number_of_blocks() {
        let blocks: Vec<_> = (0..2 * BLOCKS_KEPT_MAX).map(|_| Block::take()).collect();
        let bytes: Vec<_> = blocks.into_iter().map(|block| block.fill(1)).collect();
        assert!(KEPT.with_borrow(|kept| kept.len() <= BLOCKS_KEPT_MAX));
        drop(bytes);
        assert!(KEPT.with_borrow(|kept| kept.len() <= BLOCKS_KEPT_MAX));
    }
}
