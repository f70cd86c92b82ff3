//! Plays a script of records against the record layer and compares with a plain model.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| corelane::fuzzing::tls_record(script));
