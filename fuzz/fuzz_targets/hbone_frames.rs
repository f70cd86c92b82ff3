//! Plays a script of frames and orders against the frame engine and checks its books.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| corelane::fuzzing::hbone_frames(script));
