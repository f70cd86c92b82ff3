//! Pieces out of a stream, gathered so that one system call sends them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};

use super::tuned;
use crate::dataplane::rt::Socket;
use crate::hbone::stream::RecvHalf;

/// Pieces sent with one system call.
const PIECES_MAX: usize = 16;

/// What came out of a stream and goes into a socket: mostly one piece, in bulk several.
#[derive(Default)]
pub(super) struct Pieces {
    first: Bytes,
    /// Empty, and without memory, unless there were several.
    others: VecDeque<Bytes>,
    bytes: usize,
}

impl Pieces {
    /// Bytes that are not sent yet.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `data` and what else is here, up to a buffer full.
    pub(super) fn gather(&mut self, data: Bytes, from: &mut RecvHalf) {
        self.bytes = data.len();
        self.first = data;
        self.others = VecDeque::new();
        while self.bytes < tuned::buffer_bytes() && self.others.len() + 1 < PIECES_MAX {
            let Some(more) = from.take_more() else { break };
            self.bytes += more.len();
            self.others.push_back(more);
        }
    }

    /// Sends what the socket takes.
    pub(super) fn send(&mut self, to: &Socket) -> io::Result<usize> {
        let sent = if self.others.is_empty() {
            to.try_send(&self.first)?
        } else {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            slices[0] = IoSlice::new(&self.first);
            for (slot, piece) in slices[1..].iter_mut().zip(&self.others) {
                *slot = IoSlice::new(piece);
            }
            to.try_send_vectored(&slices[..=self.others.len()])?
        };
        self.advance(sent);
        Ok(sent)
    }

    fn advance(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while sent >= self.first.len() {
            sent -= self.first.len();
            match self.others.pop_front() {
                Some(next) => self.first = next,
                None => {
                    *self = Self::default();
                    return;
                }
            }
        }
        self.first.advance(sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_send_leaves_the_rest_in_order() {
        let mut pieces = Pieces {
            first: Bytes::from_static(b"abc"),
            others: [Bytes::from_static(b"de"), Bytes::from_static(b"f")].into(),
            bytes: 6,
        };
        pieces.advance(1);
        assert_eq!((&pieces.first[..], pieces.bytes()), (&b"bc"[..], 5));
        pieces.advance(3);
        assert_eq!((&pieces.first[..], pieces.bytes()), (&b"e"[..], 2));
        pieces.advance(1);
        assert_eq!((&pieces.first[..], pieces.bytes()), (&b"f"[..], 1));
        pieces.advance(1);
        assert_eq!((pieces.first.len(), pieces.bytes()), (0, 0));
    }
}
