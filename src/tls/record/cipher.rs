//! Keys of one direction: seals and opens single records, counts them.

use std::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroizing;

use super::{RecordError, TAG_BYTES, content};
use crate::config::limits::{TLS_RECORD_HEADER_BYTES, TLS_RECORD_PLAINTEXT_BYTES_MAX};

/// Key, IV and the number of the next record.
pub(super) struct Cipher {
    key: LessSafeKey,
    iv: Zeroizing<[u8; NONCE_LEN]>,
    sequence: u64,
}

/// What a record held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inner {
    pub(super) content_type: u8,
    /// Where in the record its content lies now.
    pub(super) content: Range<usize>,
}

impl Cipher {
    pub(super) fn new(
        sequence: u64,
        secrets: &ConnectionTrafficSecrets,
    ) -> Result<Self, RecordError> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "no other suite is offered; the TLS library may add some"
        )]
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            _ => return Err(RecordError::Internal("cipher suite without AES-GCM")),
        };
        Self::from_parts(sequence, algorithm, key.as_ref(), iv.as_ref())
    }

    pub(super) fn from_parts(
        sequence: u64,
        algorithm: &'static Algorithm,
        key: &[u8],
        iv: &[u8],
    ) -> Result<Self, RecordError> {
        let key =
            UnboundKey::new(algorithm, key).map_err(|_| RecordError::Internal("key length"))?;
        let mut own = Zeroizing::new([0; NONCE_LEN]);
        if iv.len() != own.len() {
            return Err(RecordError::Internal("IV length"));
        }
        own.copy_from_slice(iv);
        Ok(Self {
            key: LessSafeKey::new(key),
            iv: own,
            sequence,
        })
    }

    /// How many records this key has sealed or opened.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    #[cfg(test)]
    pub(super) fn set_sequence(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    /// RFC 8446, 5.3. No number is used twice, whatever comes of the record.
    fn next_nonce(&mut self) -> Result<Nonce, RecordError> {
        let mut nonce = *self.iv;
        let number = self.sequence.to_be_bytes();
        for (byte, number) in nonce[NONCE_LEN - number.len()..].iter_mut().zip(number) {
            *byte ^= number;
        }
        let next = self.sequence.checked_add(1);
        self.sequence = next.ok_or(RecordError::SequenceUsedUp)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Seals `record` where it lies: a gap for the header, content, a gap for content type and tag.
    pub(super) fn seal(&mut self, record: &mut [u8], content_type: u8) -> Result<(), RecordError> {
        let (header, sealed) = record.split_at_mut(TLS_RECORD_HEADER_BYTES);
        write_header(header, sealed.len())?;
        let (inner, tag_gap) = sealed.split_at_mut(sealed.len() - TAG_BYTES);
        if let Some(last) = inner.last_mut() {
            *last = content_type;
        }
        let nonce = self.next_nonce()?;
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(&*header), inner)
            .map_err(|_| RecordError::Internal("seal"))?;
        tag_gap.copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// Seals `plain` into `record`, which is longer by the overhead of a record.
    pub(super) fn seal_from(
        &mut self,
        plain: &[u8],
        record: &mut [u8],
        content_type: u8,
    ) -> Result<(), RecordError> {
        let (header, sealed) = record.split_at_mut(TLS_RECORD_HEADER_BYTES);
        write_header(header, sealed.len())?;
        let (inner, type_and_tag) = sealed.split_at_mut(plain.len());
        let (nonce, aad) = (self.next_nonce()?, Aad::from(&*header));
        self.key
            .seal_out_of_place_scatter(nonce, aad, plain, inner, &[content_type], type_and_tag)
            .map_err(|_| RecordError::Internal("seal"))
    }

    /// Opens a whole `record` where it lies and finds its content in front of the padding.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Inner, RecordError> {
        let nonce = self.next_nonce()?;
        let (header, sealed) = record.split_at_mut(TLS_RECORD_HEADER_BYTES);
        let inner = self
            .key
            .open_in_place(nonce, Aad::from(&*header), sealed)
            .map_err(|_| RecordError::Forged)?;
        let (content_type, end) = strip_padding(inner)?;
        Ok(Inner {
            content_type,
            content: TLS_RECORD_HEADER_BYTES..TLS_RECORD_HEADER_BYTES + end,
        })
    }

    /// Opens a whole `record` into the front of `room`, which holds [`sealed_inner_bytes`] or more.
    pub(super) fn open_to(&mut self, record: &[u8], room: &mut [u8]) -> Result<Inner, RecordError> {
        let nonce = self.next_nonce()?;
        let (header, sealed) = record.split_at(TLS_RECORD_HEADER_BYTES);
        let length = sealed.len().checked_sub(TAG_BYTES);
        let (sealed, tag) = sealed.split_at(length.ok_or(RecordError::Forged)?);
        let inner = &mut room[..sealed.len()];
        self.key
            .open_separate_gather(nonce, Aad::from(header), sealed, tag, inner)
            .map_err(|_| RecordError::Forged)?;
        let (content_type, end) = strip_padding(inner)?;
        Ok(Inner {
            content_type,
            content: 0..end,
        })
    }
}

/// Bytes that a record of `length` takes once it is opened: content, its type and padding.
pub(super) const fn sealed_inner_bytes(length: usize) -> usize {
    length.saturating_sub(TLS_RECORD_HEADER_BYTES + TAG_BYTES)
}

/// The content type of an opened record, and where its content ends (RFC 8446, 5.4).
fn strip_padding(inner: &[u8]) -> Result<(u8, usize), RecordError> {
    if inner.len() > TLS_RECORD_PLAINTEXT_BYTES_MAX + 1 {
        return Err(RecordError::TooLong);
    }
    let padded = inner.iter().rposition(|byte| *byte != 0);
    let end = padded.ok_or(RecordError::NoContentType)?;
    Ok((inner[end], end))
}

fn write_header(header: &mut [u8], length: usize) -> Result<(), RecordError> {
    let length = u16::try_from(length).map_err(|_| RecordError::TooLong)?;
    header[..3].copy_from_slice(&[content::APPLICATION_DATA, 3, 3]);
    header[3..].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both records of application data of RFC 8448, 3: key, IV, sealed.
    const TRACES: [(&str, &str, &str); 2] = [
        (
            "17422dda596ed5d9acd890e3c63f5051",
            "5b78923dee08579033e523d9",
            "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a\
             20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4",
        ),
        (
            "9f02283b6c9c07efc26bb9f2ac92e356",
            "cf782b88dd83549aadf1e984",
            "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb\
             501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d",
        ),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn the_records_of_rfc_8448_are_opened_and_sealed_again_bit_for_bit() {
        for (n, (key, iv, sealed)) in TRACES.into_iter().enumerate() {
            // The server has sent a ticket before.
            let sequence = n as u64;
            let cipher =
                || Cipher::from_parts(sequence, &AES_128_GCM, &bytes(key), &bytes(iv)).unwrap();
            let mut record = bytes(sealed);
            let inner = cipher().open(&mut record).unwrap();
            assert_eq!(inner.content_type, content::APPLICATION_DATA);
            let plain: Vec<u8> = (0..50).collect();
            assert_eq!(record[inner.content], plain);
            let mut room = [7; 60];
            let inner = cipher().open_to(&bytes(sealed), &mut room).unwrap();
            assert_eq!(inner.content_type, content::APPLICATION_DATA);
            assert_eq!(
                (&room[inner.content], &room[51..]),
                (&plain[..], &[7; 9][..])
            );
            let mut again = [&[0; 5][..], &plain, &[0; 17]].concat();
            cipher()
                .seal(&mut again, content::APPLICATION_DATA)
                .unwrap();
            assert_eq!(again, bytes(sealed), "in place");
            let mut apart = vec![0; again.len()];
            cipher()
                .seal_from(&plain, &mut apart, content::APPLICATION_DATA)
                .unwrap();
            assert_eq!(apart, again, "from elsewhere");
        }
    }
}
