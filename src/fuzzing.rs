//! Entry points of the fuzz targets, compiled for fuzzing only. `cargo test` replays their corpora.

/// Plays `script` against the record layer. Panics when it does anything else than the model says.
pub fn tls_record(script: &[u8]) {
    crate::tls::play_records(script);
}
