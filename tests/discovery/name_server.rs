//! A name server on loopback, and a client of name servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::plane::PATIENCE;
use crate::serving::Serving;

/// Answers every question for an IPv4 address with its own. Dropped, it is gone.
pub(crate) struct NameServer {
    _serving: Serving,
}

impl NameServer {
    /// Nothing where port 53 takes privileges that the test does not have.
    pub(crate) fn start(ip: Ipv4Addr) -> Option<Self> {
        let socket = match UdpSocket::bind((ip, 53)) {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            Err(error) => panic!("{error}"),
        };
        socket.set_nonblocking(true).unwrap();
        let serving = Serving::start(move || async move {
            let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
            let mut buffer = [0; 4_096];
            // A client that went away makes the next call fail.
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                    let _ = socket.send_to(&answer(&buffer[..length], ip), from).await;
                }
            }
        });
        Some(Self { _serving: serving })
    }
}

fn answer(question: &[u8], ip: Ipv4Addr) -> Vec<u8> {
    let asked = Message::from_vec(question).unwrap();
    let mut reply = Message::response(asked.metadata.id, OpCode::Query);
    reply.add_queries(asked.queries.iter().cloned());
    if asked.queries[0].query_type() == RecordType::A {
        let name = asked.queries[0].name().clone();
        reply.add_answer(Record::from_rdata(name, 0, RData::A(A(ip))));
    }
    reply.to_vec().unwrap()
}

/// Asks for the IPv4 addresses of a name, from that address; none if the server could not tell.
pub(crate) fn addresses(server: SocketAddr, from: IpAddr, name: &str) -> Vec<Ipv4Addr> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&message.to_vec().unwrap(), server).unwrap();
    let mut buffer = [0; 4_096];
    let length = socket.recv(&mut buffer).expect("an answer");
    let reply = Message::from_vec(&buffer[..length]).unwrap();
    assert!(
        matches!(
            reply.metadata.response_code,
            ResponseCode::NoError | ResponseCode::ServFail
        ),
        "{reply:?}"
    );
    let mut found = Vec::new();
    for record in &reply.answers {
        if let RData::A(A(ip)) = &record.data {
            found.push(*ip);
        }
    }
    found
}
