//! Undoes the Huffman code of header strings (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical, so the length of each symbol's code is all there is to know: codes of one
//! length are consecutive numbers in the order of their symbols.

use super::HpackError;

/// End of string: never allowed in a string (RFC 7541 section 5.2).
const EOS: u16 = 256;
const SYMBOLS: usize = 257;
const BITS_MIN: usize = 5;
const BITS_MAX: usize = 30;

/// Bits of each symbol's code (RFC 7541 appendix B), EOS last.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The codes of one length, left-aligned in 32 bits.
#[derive(Clone, Copy)]
struct Group {
    /// The first code, and the first number behind the last one (which needs a 33rd bit).
    start: u64,
    end: u64,
    /// Place of the first code's symbol in [`Codes::symbols`].
    first: usize,
}

struct Codes {
    groups: [Group; BITS_MAX + 1],
    symbols: [u16; SYMBOLS],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let empty = Group {
        start: 0,
        end: 0,
        first: 0,
    };
    let mut codes = Codes {
        groups: [empty; BITS_MAX + 1],
        symbols: [0; SYMBOLS],
    };
    let mut next: u64 = 0;
    let mut place = 0;
    let mut bits = BITS_MIN;
    while bits <= BITS_MAX {
        let (start, first) = (next, place);
        let mut symbol: u16 = 0;
        while (symbol as usize) < SYMBOLS {
            if LENGTHS[symbol as usize] as usize == bits {
                codes.symbols[place] = symbol;
                place += 1;
                next += 1 << (32 - bits);
            }
            symbol += 1;
        }
        codes.groups[bits] = Group {
            start,
            end: next,
            first,
        };
        bits += 1;
    }
    codes
}

/// Appends the decoded string. Padding must be the most significant bits of EOS, fewer than eight.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    // At least five bits a symbol.
    out.reserve(coded.len() * 8 / BITS_MIN);
    let mut bytes = coded.iter();
    let mut window: u64 = 0;
    let mut held = 0;
    loop {
        while held <= 32 {
            let Some(byte) = bytes.next() else { break };
            window |= u64::from(*byte) << (56 - held);
            held += 8;
        }
        if held == 0 {
            return Ok(());
        }
        // Missing bits are taken as ones: a rest of padding then reads as the start of EOS.
        let padded = if held < 32 {
            window | (u64::MAX >> held)
        } else {
            window
        };
        let code = padded >> 32;
        let Some((bits, symbol)) = look_up(code) else {
            return Err(HpackError::Huffman);
        };
        if bits > held {
            let padding = held < 8 && symbol == EOS;
            return if padding {
                Ok(())
            } else {
                Err(HpackError::Huffman)
            };
        }
        let Ok(byte) = u8::try_from(symbol) else {
            return Err(HpackError::Huffman);
        };
        out.push(byte);
        window <<= bits;
        held -= bits;
    }
}

fn look_up(code: u64) -> Option<(usize, u16)> {
    (BITS_MIN..=BITS_MAX).find_map(|bits| {
        let group = &CODES.groups[bits];
        let number = code.checked_sub(group.start).filter(|_| code < group.end)?;
        let place = usize::try_from(number >> (32 - bits)).ok()?;
        Some((bits, CODES.symbols[group.first + place]))
    })
}

/// Encodes, for tests of the decoder only: our encoder sends plain literals.
#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let mut bits = Vec::new();
    for byte in text {
        let length = usize::from(LENGTHS[usize::from(*byte)]);
        let group = &CODES.groups[length];
        let place = CODES
            .symbols
            .iter()
            .position(|symbol| *symbol == u16::from(*byte))
            .unwrap();
        let code = (group.start >> (32 - length)) + (place - group.first) as u64;
        bits.extend((0..length).rev().map(|at| code >> at & 1 == 1));
    }
    while !bits.len().is_multiple_of(8) {
        bits.push(true);
    }
    bits.chunks(8)
        .map(|byte| byte.iter().fold(0, |all, bit| all << 1 | u8::from(*bit)))
        .collect()
}
