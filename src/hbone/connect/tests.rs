//! Requests and answers, encoded and parsed.

use super::*;

const LIMITS: RequestLimits = RequestLimits {
    headers: 32,
    header_list: 16 * 1024,
    authority: 300,
};

fn connect(authority: &str, fields: &[(&'static str, &[u8])]) -> Request<()> {
    let mut parts = uri::Parts::default();
    parts.authority = Some(authority.parse().unwrap());
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::from_parts(parts).unwrap();
    for (name, value) in fields {
        let name = HeaderName::from_static(name);
        let value = HeaderValue::from_bytes(value).unwrap();
        request.headers_mut().append(name, value);
    }
    request
}

fn parse(request: &Request<()>) -> Result<ConnectRequest, Refusal> {
    parse_request(request, LIMITS).map_err(|(refusal, _)| refusal)
}

#[test]
fn an_authority_is_an_address_or_a_hostname_with_a_port() {
    for (text, expected) in [
        (
            "10.0.0.2:8080",
            Some(Authority::Address("10.0.0.2:8080".parse().unwrap())),
        ),
        (
            "[ff06::c3]:80",
            Some(Authority::Address("[ff06::c3]:80".parse().unwrap())),
        ),
        // Not reduced: it must not equal the IPv4 address later.
        (
            "[::ffff:10.0.0.2]:80",
            Some(Authority::Address("[::ffff:10.0.0.2]:80".parse().unwrap())),
        ),
        (
            "server.default.svc.cluster.local:80",
            Some(Authority::Hostname(
                "server.default.svc.cluster.local".into(),
                80,
            )),
        ),
        ("Server:0", Some(Authority::Hostname("Server".into(), 0))),
        ("10.0.0.2", None),
        ("10.0.0.2:", None),
        ("10.0.0.2:65536", None),
        ("server", None),
        ("server:", None),
        ("server:65536", None),
        ("server:http", None),
        ("user@server:80", None),
        ("user@10.0.0.2:80", None),
        ("[::1]", None),
        ("[fe80::1%251]:80", None),
    ] {
        let Ok(authority) = text.parse::<uri::Authority>() else {
            assert_eq!(expected, None, "{text}");
            continue;
        };
        assert_eq!(parse_authority(&authority), expected, "{text}");
    }
}

#[test]
fn encoded_authorities_parse_back() {
    for authority in [
        Authority::Address("127.0.0.1:80".parse().unwrap()),
        Authority::Address("[ff06::c3]:65535".parse().unwrap()),
        Authority::Hostname("example.com".into(), 80),
    ] {
        let request = ConnectRequest {
            authority: authority.clone(),
            baggage: Baggage::default(),
            forwarded: Forwarded::default(),
            traceparent: None,
            forwarded_network: None,
        };
        let encoded = encode_request(&request).unwrap();
        assert_eq!(encoded.headers()["baggage"], "");
        assert_eq!(parse(&encoded).unwrap().authority, authority);
    }
}

#[test]
fn a_hostname_that_is_no_authority_is_not_sent() {
    for host in ["", "a b", "a/b", "\u{e9}", "a\r\nx: y"] {
        let request = ConnectRequest {
            authority: Authority::Hostname(host.into(), 80),
            baggage: Baggage::default(),
            forwarded: Forwarded::default(),
            traceparent: None,
            forwarded_network: None,
        };
        assert!(encode_request(&request).is_none(), "{host:?}");
    }
}

#[test]
fn forwarded_is_written_as_the_contract_has_it() {
    for (client, host, expected) in [
        (Some("127.0.0.1:80"), None, "for=\"127.0.0.1:80\""),
        (Some("[::1]:80"), None, "for=\"[::1]:80\""),
        (
            Some("127.0.0.1:80"),
            Some("example.com"),
            "for=\"127.0.0.1:80\";host=example.com",
        ),
        (None, Some("example.com"), "host=example.com"),
    ] {
        let forwarded = Forwarded {
            client: client.map(|client| client.parse().unwrap()),
            host: host.map(Into::into),
        };
        assert_eq!(encode_forwarded(&forwarded), expected);
    }
}

#[test]
fn forwarded_host_is_read_with_or_without_quotes() {
    let cases: [(&[u8], Option<&str>); 12] = [
        (b"host=example.com", Some("example.com")),
        (b"host=\"example.com\"", Some("example.com")),
        (b"for=\"1.2.3.4:5\";host=example.com", Some("example.com")),
        (
            b"for=\"[::1]:80\" ; host=example.com ;proto=tcp",
            Some("example.com"),
        ),
        (b"host=", None),
        (b"host=\"\"", None),
        (b"host=\"", None),
        (b"", None),
        (b"for=1.2.3.4", None),
        (b"xhost=example.com", None),
        (b"host=ex\xe4mple.com", None),
        (b"host = example.com", None),
    ];
    for (text, expected) in cases {
        let header = HeaderValue::from_bytes(text).unwrap();
        assert_eq!(
            parse_forwarded_host(&header).as_deref(),
            expected,
            "{text:?}"
        );
    }
    let none = parse(&connect("10.0.0.2:80", &[])).unwrap();
    assert_eq!(none.forwarded, Forwarded::default());
}

#[test]
fn fields_that_cannot_be_read_leave_the_request_valid() {
    let request = connect(
        "10.0.0.2:80",
        &[
            ("baggage", b"service.name=a"),
            ("baggage", b"cloud.region=\xff"),
            ("traceparent", b"00-xyz"),
            ("x-forwarded-network", b"n\xff"),
            ("unknown", b"ignored"),
        ],
    );
    let parsed = parse(&request).unwrap();
    assert_eq!(parsed.baggage, Baggage::default());
    assert_eq!(parsed.traceparent, None);
    assert_eq!(parsed.forwarded_network, None);
}

#[test]
fn an_empty_network_is_still_a_network() {
    let request = connect("10.0.0.2:80", &[("x-forwarded-network", b"")]);
    assert_eq!(
        parse(&request).unwrap().forwarded_network.as_deref(),
        Some("")
    );
}

#[test]
fn response_baggage_is_absent_empty_or_read() {
    let baggage = Baggage {
        cluster: Some("Kubernetes".into()),
        ..Baggage::default()
    };
    let response = encode_response(200, Some(&baggage));
    assert_eq!(response.headers()["baggage"], "k8s.cluster.name=Kubernetes");
    assert_eq!(parse_response(response.headers()).baggage, Some(baggage));
    let bare = encode_response(503, None);
    assert_eq!((bare.status().as_u16(), bare.headers().len()), (503, 0));
    assert_eq!(
        parse_response(bare.headers()).baggage,
        Some(Baggage::default())
    );
    let mut unreadable = HeaderMap::new();
    unreadable.insert(BAGGAGE, HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(parse_response(&unreadable).baggage, None);
}

#[test]
fn a_baggage_value_that_no_header_may_carry_is_left_out() {
    let baggage = Baggage {
        cluster: Some("a\r\nb".into()),
        ..Baggage::default()
    };
    assert_eq!(
        encode_response(200, Some(&baggage)).headers()["baggage"],
        ""
    );
}

#[test]
fn sizes_are_counted_as_http2_counts_them() {
    let limits = RequestLimits {
        headers: 2,
        header_list: 100,
        authority: 20,
    };
    // Name, value and 32 bytes for each field.
    let fits = connect("10.0.0.2:80", &[("a", &[b'v'; 17]), ("b", &[b'v'; 17])]);
    assert!(parse_request(&fits, limits).is_ok());
    for (request, status, cause) in [
        (
            connect("10.0.0.2:80", &[("a", &[b'v'; 17]), ("b", &[b'v'; 18])]),
            431,
            RefusalCause::Headers,
        ),
        (
            connect("10.0.0.2:80", &[("a", b""), ("b", b""), ("c", b"")]),
            431,
            RefusalCause::Headers,
        ),
        (
            connect("a-long-hostname-is:80", &[]),
            400,
            RefusalCause::Authority,
        ),
        (connect("10.0.0.2", &[]), 400, RefusalCause::Malformed),
    ] {
        let (refusal, seen) = parse_request(&request, limits).unwrap_err();
        assert_eq!((refusal.status, seen), (status, cause));
    }
}
