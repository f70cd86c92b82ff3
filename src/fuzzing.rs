//! Entry points of the fuzz targets, compiled for fuzzing only. `cargo test` replays their corpora.

/// Plays `script` against the frame engine. Panics when its books do not balance.
pub fn hbone_frames(script: &[u8]) {
    crate::hbone::play_frames(script);
}

/// Plays `script` against the record layer. Panics when it does anything else than the model says.
pub fn tls_record(script: &[u8]) {
    crate::tls::play_records(script);
}
