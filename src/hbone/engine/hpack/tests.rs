//! The examples of RFC 7541 appendix C, the static table, and blocks that are wrong.

use bytes::Bytes;
use proptest::prelude::*;

use super::table::STATIC;
use super::*;

type Fields = Vec<(String, String)>;
type Texts<'a> = &'a [(&'a str, &'a str)];
type Block<'a> = (&'a str, Texts<'a>, Texts<'a>, usize);

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, HpackError> {
    let mut fields = Vec::new();
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    decoder.decode(block, |name, value| fields.push((text(name), text(value))))?;
    Ok(fields)
}

fn owned(fields: &[(&str, &str)]) -> Fields {
    fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Blocks of one connection in order: the bytes, the fields, the table afterwards and its size.
fn expect(start: &str, blocks: &[Block<'_>]) {
    let mut decoder = Decoder::default();
    assert_eq!(decode(&mut decoder, &bytes(start)), Ok(vec![]));
    for (hex, fields, table, size) in blocks {
        assert_eq!(
            decode(&mut decoder, &bytes(hex)),
            Ok(owned(fields)),
            "{hex}"
        );
        assert_eq!(decoder.table(), (owned(table), *size), "{hex}");
    }
}

#[test]
fn single_fields_of_appendix_c2() {
    let custom: &[(&str, &str)] = &[("custom-key", "custom-header")];
    let hex = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    expect("", &[(hex, custom, custom, 55)]);
    let hex = "040c 2f73 616d 706c 652f 7061 7468";
    expect("", &[(hex, &[(":path", "/sample/path")], &[], 0)]);
    let hex = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    expect("", &[(hex, &[("password", "secret")], &[], 0)]);
    expect("", &[("82", &[(":method", "GET")], &[], 0)]);
}

const AUTHORITY: (&str, &str) = (":authority", "www.example.com");
const NO_CACHE: (&str, &str) = ("cache-control", "no-cache");
const CUSTOM: (&str, &str) = ("custom-key", "custom-value");

#[test]
fn requests_of_appendices_c3_and_c4() {
    let [get, http, https, root, index] = [
        (":method", "GET"),
        (":scheme", "http"),
        (":scheme", "https"),
        (":path", "/"),
        (":path", "/index.html"),
    ];
    for [first, second, third] in [
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
    ] {
        expect(
            "",
            &[
                (first, &[get, http, root, AUTHORITY], &[AUTHORITY], 57),
                (
                    second,
                    &[get, http, root, AUTHORITY, NO_CACHE],
                    &[NO_CACHE, AUTHORITY],
                    110,
                ),
                (
                    third,
                    &[get, https, index, AUTHORITY, CUSTOM],
                    &[CUSTOM, NO_CACHE, AUTHORITY],
                    164,
                ),
            ],
        );
    }
}

#[test]
fn answers_of_appendices_c5_and_c6() {
    let private = ("cache-control", "private");
    let date = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
    let later = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
    let location = ("location", "https://www.example.com");
    let [found, redirect, ok] = ["302", "307", "200"].map(|status| (":status", status));
    let gzip = ("content-encoding", "gzip");
    let cookie = (
        "set-cookie",
        "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    );
    for [first, second, third] in [
        [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 \
             2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 \
             6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d \
             54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 \
             5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e \
             3d31",
        ],
        [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
             77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
             9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ],
    ] {
        // The examples use a table of 256 bytes.
        expect(
            "3f e1 01",
            &[
                (
                    first,
                    &[found, private, date, location],
                    &[location, date, private, found],
                    222,
                ),
                (
                    second,
                    &[redirect, private, date, location],
                    &[redirect, location, date, private],
                    222,
                ),
                (
                    third,
                    &[ok, private, later, location, gzip, cookie],
                    &[cookie, gzip, later],
                    215,
                ),
            ],
        );
    }
}

#[test]
fn each_entry_of_the_static_table_has_its_number() {
    for (place, (name, value)) in STATIC.iter().enumerate() {
        let index = u8::try_from(place + 1).unwrap();
        let fields = decode(&mut Decoder::default(), &[0x80 | index]).unwrap();
        assert_eq!(fields, owned(&[(name, value)]));
    }
    for (index, name) in [
        (1, ":authority"),
        (14, ":status"),
        (15, "accept-charset"),
        (28, "content-length"),
        (38, "host"),
        (50, "range"),
        (58, "user-agent"),
        (61, "www-authenticate"),
    ] {
        assert_eq!(STATIC[index - 1].0, name);
    }
}

#[test]
fn wrong_blocks_are_refused_for_what_is_wrong() {
    use HpackError::{Huffman, Index, Integer, LateTableSize, TableSize, Truncated};
    for (hex, error) in [
        ("80", Index(0)),
        ("be", Index(62)),
        ("ff 00", Index(127)),
        ("7f 00 00", Index(63)),
        ("40", Truncated),
        ("40 05 61", Truncated),
        ("00 01 61", Truncated),
        ("00 81 ff 00", Huffman),
        ("ff 80 80 80", Truncated),
        ("ff ff ff ff ff ff ff ff ff ff 01", Integer),
        ("ff 80 80 80 80 80 01", Integer),
        ("3f e2 1f", TableSize(4097)),
        ("82 20", LateTableSize),
        ("20 20 20", LateTableSize),
        // EOS inside a string, padding of eight bits, padding with zeros.
        ("00 84 ff ff ff ff 00", Huffman),
        ("00 82 1f ff 00", Huffman),
        ("00 81 00 00", Huffman),
    ] {
        let decoded = decode(&mut Decoder::default(), &bytes(hex));
        assert_eq!(decoded, Err(error), "{hex}");
    }
    let right = [("3f e1 1f", 0), ("20 3f e1 1f 82", 1), ("00 81 1f 00", 1)];
    for (hex, fields) in right {
        let decoded = decode(&mut Decoder::default(), &bytes(hex)).unwrap();
        assert_eq!(decoded.len(), fields, "{hex}");
    }
}

#[test]
fn a_field_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::default();
    decode(&mut decoder, &bytes("4001 6101 62")).unwrap();
    assert_eq!(decoder.table().1, 34);
    let mut large = bytes("4001 63 7f a1 1f");
    // 127 + 33 + 31 * 128 bytes.
    large.resize(large.len() + 4128, b'x');
    assert_eq!(decode(&mut decoder, &large).unwrap().len(), 1);
    assert_eq!(decoder.table(), (vec![], 0));
}

#[test]
fn requests_and_answers_are_encoded_as_they_are_decoded() {
    let request = http::Request::builder()
        .method("CONNECT")
        .uri("10.0.0.2:80")
        .header("baggage", "k=v".repeat(100))
        .header("forwarded", "")
        .body(())
        .unwrap();
    let mut block = Vec::new();
    encode_request(&request, &mut block);
    assert_eq!(block[0], 0x02, "no entry is added to the peer's table");
    let fields = decode(&mut Decoder::default(), &block).unwrap();
    let baggage = "k=v".repeat(100);
    let expected: &[(&str, &str)] = &[
        (":method", "CONNECT"),
        (":authority", "10.0.0.2:80"),
        ("baggage", &baggage),
        ("forwarded", ""),
    ];
    assert_eq!(fields, owned(expected));
    for status in [200_u16, 204, 206, 304, 400, 401, 404, 431, 500, 503] {
        let response = http::Response::builder().status(status).body(()).unwrap();
        let mut block = Vec::new();
        encode_table_reset(&mut block);
        encode_response(&response, &mut block);
        let fields = decode(&mut Decoder::default(), &block).unwrap();
        assert_eq!(fields, owned(&[(":status", &status.to_string())]));
    }
}

proptest! {
    #[test]
    fn huffman_codes_come_back(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut plain = Vec::new();
        huffman::decode(&huffman::encode(&text), &mut plain).unwrap();
        prop_assert_eq!(plain, text);
    }

    #[test]
    fn any_block_is_decoded_or_refused(block in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut decoder = Decoder::default();
        let _ = decoder.decode(&block, |_, _| {});
        prop_assert!(decoder.table_bytes() <= TABLE_BYTES_MAX);
    }
}
