//! The expert section: every value bounded, contradictions with the rest refused.

use super::super::limits::{
    TUNED_BUFFER_BYTES_MAX, TUNED_BUFFER_BYTES_MIN, TUNED_PIPE_BYTES_MAX, TUNED_PIPE_BYTES_MIN,
};
use super::super::problem::ProblemKind;
use super::super::schema::Key;
use super::super::tuning::{RingFlags, Steering, Tuning};
use super::super::value::{Choice, Integer, Or, PowerOfTwo};
use super::resolver::Resolver;

const RING_FLAGS: Choice<RingFlags> = Choice(&[
    ("best", RingFlags::Best),
    ("coop", RingFlags::Coop),
    ("plain", RingFlags::Plain),
]);

const STEERINGS: Choice<Steering> = Choice(&[("hash", Steering::Hash), ("cpu", Steering::Cpu)]);

/// The expert section. `pinned`: whether shards are pinned.
pub(super) fn tuning(r: &mut Resolver, pinned: bool) -> Tuning {
    let default = Tuning::default();
    // SO_RCVBUF and SO_SNDBUF below 4 KiB are raised by the kernel; above 256 MiB is a slip.
    let buffer = || Or("auto", Integer(4_096..=268_435_456_usize));
    let pipe = Or(
        "off",
        PowerOfTwo(TUNED_PIPE_BYTES_MIN..=TUNED_PIPE_BYTES_MAX),
    );
    let pipe_default = default
        .pipe_bytes
        .and_then(|bytes| u32::try_from(bytes).ok());
    let tuning = Tuning {
        ring_flags: r.get(Key::TuneRingFlags, default.ring_flags, &RING_FLAGS),
        pipe_bytes: r
            .get(Key::TunePipe, pipe_default, &pipe)
            .map(|bytes| bytes as usize),
        promote_reads: r.get(Key::TunePromote, default.promote_reads, &Integer(1..=4_096)),
        relay_buffer_bytes: r.get(
            Key::TuneBuffer,
            default.relay_buffer_bytes,
            &Integer(TUNED_BUFFER_BYTES_MIN..=TUNED_BUFFER_BYTES_MAX),
        ),
        receive_buffer_bytes: r.get(Key::TuneReceiveBuffer, None, &buffer()),
        send_buffer_bytes: r.get(Key::TuneSendBuffer, None, &buffer()),
        notsent_lowat_bytes: r.get(
            Key::TuneNotsent,
            default.notsent_lowat_bytes,
            &Or("auto", Integer(4_096..=268_435_456)),
        ),
        busy_poll_micros: r.get(Key::TuneBusyPoll, None, &Or("auto", Integer(0..=10_000))),
        listen_backlog: r.get(
            Key::TuneBacklog,
            default.listen_backlog,
            &Integer(1..=65_535),
        ),
        steering: r.get(Key::TuneSteering, default.steering, &STEERINGS),
    };
    if tuning.steering == Steering::Cpu && !pinned {
        let message = "`cpu` needs pinned shards, and `shards.pin` is off".to_owned();
        let origin = r.origin_of(Key::TuneSteering);
        r.problem(origin, Key::TuneSteering, ProblemKind::Conflict(message));
    }
    tuning
}
