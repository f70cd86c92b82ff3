//! The little of HPACK (RFC 7541) that a raw peer needs: literals out, a status in.

/// Appends a field as a literal without indexing, neither part compressed (RFC 7541 section 6.2.2).
pub(super) fn push_literal(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    block.push(0);
    for part in [name.as_bytes(), value] {
        push_length(block, part.len());
        block.extend_from_slice(part);
    }
}

/// An integer with a 7-bit prefix (RFC 7541 section 5.1).
fn push_length(block: &mut Vec<u8>, len: usize) {
    let byte = |value: usize| u8::try_from(value).expect("masked");
    if len < 127 {
        block.push(byte(len));
        return;
    }
    block.push(127);
    let mut rest = len - 127;
    while rest >= 128 {
        block.push(byte(rest % 128) | 128);
        rest /= 128;
    }
    block.push(byte(rest));
}

/// Status of a response: its first field, from the static table or as a literal (RFC 7541).
pub(super) fn parse_status(block: &[u8]) -> Option<u16> {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let first = *block.first()?;
    if first & 0x80 != 0 {
        return STATIC
            .get(usize::from(first & 0x7f).checked_sub(8)?)
            .copied();
    }
    // A literal whose name is the table's `:status`, with or without indexing.
    let name = if first & 0x40 != 0 {
        first & 0x3f
    } else {
        first & 0x0f
    };
    if !(8..=14).contains(&name) {
        return None;
    }
    let len = *block.get(1)?;
    let value = block.get(2..2 + usize::from(len & 0x7f))?;
    let digits = if len & 0x80 != 0 {
        decompress_digits(value)?
    } else {
        value.to_vec()
    };
    String::from_utf8(digits).ok()?.parse().ok()
}

/// Undoes the Huffman code for digits: 5 bits for 0 to 2, 6 bits for 3 to 9 (RFC 7541 appendix B).
fn decompress_digits(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1));
    let mut digits = Vec::new();
    while digits.len() < 3 {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | bits.next()?;
        }
        if code > 2 {
            code = code << 1 | bits.next()?;
            // 3 is 011001.
            code = code
                .checked_sub(0b01_1001)?
                .checked_add(3)
                .filter(|digit| *digit <= 9)?;
        }
        digits.push(b'0' + code);
    }
    Some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_in_each_form() {
        assert_eq!(parse_status(&[0x88]), Some(200));
        assert_eq!(parse_status(&[0x8c]), Some(400));
        assert_eq!(parse_status(&[0x48, 3, b'4', b'0', b'1']), Some(401));
        // 503 compressed: 011011 00000 011001, padded with ones.
        assert_eq!(
            parse_status(&[0x48, 0x83, 0b0110_1100, 0b0000_1100, 0b1111_1111]),
            Some(503)
        );
        assert_eq!(parse_status(&[0x10]), None);
        assert_eq!(parse_status(&[]), None);
    }

    #[test]
    fn long_literals_get_a_multi_byte_length() {
        let mut block = Vec::new();
        push_length(&mut block, 126);
        push_length(&mut block, 127);
        push_length(&mut block, 300);
        assert_eq!(block, [126, 127, 0, 127, 0xad, 1]);
    }
}
