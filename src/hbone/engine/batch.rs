//! Frames on their way to the transport: heads and small payloads packed together, large payloads
//! where they are.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use super::frame;

/// Payloads below this are copied behind their head: cheaper than one more slice.
const PACK_BYTES_MAX: usize = 2048;
/// A batch takes no further frames from here on.
const BATCH_BYTES: usize = 256 * 1024;
/// Slices given to the transport at once.
pub(super) const SLICES_MAX: usize = 64;

thread_local! {
    /// The buffer of the batch sent last: a tunnel that sends nothing owns none.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

#[derive(Debug)]
enum Segment {
    /// The next so many bytes of [`Batch::packed`].
    Packed(usize),
    Lent(Bytes),
}

/// Frames that will be sent, come what may: a frame that has begun must be finished.
#[derive(Debug, Default)]
pub(super) struct Batch {
    packed: Vec<u8>,
    /// Bytes of `packed` that were sent.
    unpacked: usize,
    /// Bytes of `packed` that belong to a segment.
    segmented: usize,
    segments: VecDeque<Segment>,
    bytes: usize,
}

impl Batch {
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES
    }

    /// Where whole frames may be written; call [`Batch::packed`] afterwards.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.packed.capacity() == 0 {
            self.packed = SPARE.take();
        }
        &mut self.packed
    }

    /// Takes over what was written into [`Batch::buffer`].
    pub(super) fn packed(&mut self) {
        let added = self.packed.len() - self.segmented;
        if added == 0 {
            return;
        }
        self.segmented += added;
        self.bytes += added;
        if let Some(Segment::Packed(bytes)) = self.segments.back_mut() {
            *bytes += added;
        } else {
            self.segments.push_back(Segment::Packed(added));
        }
    }

    /// Adds DATA whose payload is the first `length` bytes of `queue`.
    pub(super) fn add_data(
        &mut self,
        stream: u32,
        length: usize,
        end: bool,
        queue: &mut VecDeque<Bytes>,
    ) {
        let flags = if end { frame::END_STREAM } else { 0 };
        frame::write_head(self.buffer(), length, frame::DATA, flags, stream);
        let mut rest = length;
        while rest > 0 {
            let Some(front) = queue.front_mut() else {
                break;
            };
            let part = front.split_to(rest.min(front.len()));
            if front.is_empty() {
                queue.pop_front();
            }
            rest -= part.len();
            if part.len() < PACK_BYTES_MAX {
                self.buffer().extend_from_slice(&part);
            } else {
                self.packed();
                self.bytes += part.len();
                self.segments.push_back(Segment::Lent(part));
            }
        }
        self.packed();
    }

    /// What to send next; the number of slices that were set.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut packed = &self.packed[self.unpacked..];
        let mut count = 0;
        for (slot, segment) in slices.iter_mut().zip(&self.segments) {
            *slot = match segment {
                Segment::Packed(bytes) => {
                    let (front, back) = packed.split_at(*bytes);
                    packed = back;
                    IoSlice::new(front)
                }
                Segment::Lent(data) => IoSlice::new(data),
            };
            count += 1;
        }
        count
    }

    /// The transport took so many bytes.
    pub(super) fn advance(&mut self, mut taken: usize) {
        self.bytes -= taken;
        while taken > 0 {
            let Some(front) = self.segments.front_mut() else {
                break;
            };
            let left = match front {
                Segment::Packed(bytes) => {
                    let step = taken.min(*bytes);
                    *bytes -= step;
                    self.unpacked += step;
                    taken -= step;
                    *bytes
                }
                Segment::Lent(data) => {
                    let step = taken.min(data.len());
                    data.advance(step);
                    taken -= step;
                    data.len()
                }
            };
            if left == 0 {
                self.segments.pop_front();
            }
        }
        if self.bytes == 0 {
            self.segments.clear();
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        let mut buffer = std::mem::take(&mut self.packed);
        buffer.clear();
        self.unpacked = 0;
        self.segmented = 0;
        self.segments.shrink_to(0);
        let spare = SPARE.take();
        SPARE.set(if spare.capacity() > buffer.capacity() {
            spare
        } else {
            buffer
        });
    }
}
