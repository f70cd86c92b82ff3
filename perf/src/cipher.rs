//! What sealing and opening TLS records costs on this machine, with the library Corelane uses: the
//! part of an encrypting tunnel's cost that no data path can avoid.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Plain text of a full TLS record (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16 * 1_024;

/// Records per measurement: 64 MiB.
const RECORDS: u32 = 4_096;

/// CPU seconds per GiB for one seal and one open of 16 KiB records.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// `TLS_AES_128_GCM_SHA256`.
    pub aes_128: f64,
    /// `TLS_AES_256_GCM_SHA384`.
    pub aes_256: f64,
}

/// Measures on the calling thread, counting its own CPU time only.
///
/// # Errors
/// If the library refuses.
pub fn measure() -> Result<Cost> {
    Ok(Cost {
        aes_128: seal_and_open(&AES_128_GCM)?,
        aes_256: seal_and_open(&AES_256_GCM)?,
    })
}

fn seal_and_open(algorithm: &'static Algorithm) -> Result<f64> {
    let refused = |_| Error::Unreadable {
        what: "AES-GCM".into(),
        why: "the library refused".into(),
    };
    let key = UnboundKey::new(algorithm, &vec![7; algorithm.key_len()]).map_err(refused)?;
    let key = LessSafeKey::new(key);
    let mut record = vec![0_u8; RECORD_BYTES];
    let started = thread_seconds();
    for number in 0..RECORDS {
        let nonce = || {
            let mut nonce = [0; 12];
            nonce[8..].copy_from_slice(&number.to_be_bytes());
            Nonce::assume_unique_for_key(nonce)
        };
        let header = || Aad::from([23, 3, 3, 64, 16]);
        let tag = key
            .seal_in_place_separate_tag(nonce(), header(), &mut record)
            .map_err(refused)?;
        record.extend_from_slice(tag.as_ref());
        key.open_in_place(nonce(), header(), &mut record)
            .map_err(refused)?;
        record.truncate(RECORD_BYTES);
    }
    let gib = f64::from(RECORDS) * RECORD_BYTES as f64 / crate::work::GIB;
    Ok((thread_seconds() - started) / gib)
}

fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealing_and_opening_takes_time_with_each_key_length() {
        let cost = measure().unwrap();
        assert!(cost.aes_128 > 0.0 && cost.aes_256 > 0.0, "{cost:?}");
    }
}
