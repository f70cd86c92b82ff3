//! The little DER that this program writes itself: names of subjects.

/// SEQUENCE.
pub(super) const TAG_SEQUENCE: u8 = 0x30;
/// URI form of RFC 5280 `GeneralName`.
pub(super) const TAG_URI: u8 = 0x86;
/// Extension `subjectAltName` (RFC 5280, 4.2.1.6).
pub(super) const OID_SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];

/// One DER element. Lengths up to 65535.
pub(super) fn der(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    let mut element = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    element.extend_from_slice(&value[..usize::from(length)]);
    element
}
