//! What keeps a connection to the control plane sound: limits of time and size, and signs of life.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use corelane_harness::clock;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{Domain, SockRef, Socket, Type};

use crate::mesh::Mesh;
use crate::plane::{ADDRESS, PATIENCE, Plane};
use crate::serving::Serving;

const MIB: u32 = 1024 * 1024;

/// Answers each stream with the head of a message of that size, then ends it.
fn announcing(size: u32, at: SocketAddr) -> Serving {
    let listener = TcpListener::bind(at).unwrap();
    listener.set_nonblocking(true).unwrap();
    let head = [&[0][..], &size.to_be_bytes()].concat();
    Serving::start(move || async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let head = head.clone();
            let answer = move |_: http::Request<Incoming>| {
                let body = Full::new(Bytes::from(head.clone()));
                let answer = http::Response::builder()
                    .header("content-type", "application/grpc")
                    .body(body);
                async { answer }
            };
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let service = hyper::service::service_fn(answer);
            tokio::spawn(http2.serve_connection(TokioIo::new(socket), service));
        }
    })
}

#[test]
fn a_response_above_the_limit_is_refused_before_it_is_read() {
    // The first may be sent; that it is not whole is another matter.
    for (size, is_refused) in [(200 * MIB, false), (200 * MIB + 1, true)] {
        let mesh = Mesh::new();
        let at = SocketAddr::from((mesh.ip(9), 15_010));
        let announcing = announcing(size, at);
        let server = mesh.launch("server", &format!("http://{at}"), &[]);
        let ended = server.process();
        ended.wait_output("stream ended: ", PATIENCE);
        let refusal = format!("found {size} bytes, the limit is: {} bytes", 200 * MIB);
        assert_eq!(ended.output().contains(&refusal), is_refused, "{size}");
        assert!(ended.memory("VmRSS") < u64::from(100 * MIB));
        // Neither is the end of it.
        drop(announcing);
        let plane = Plane::again(at);
        let _stream = plane.stream_with(mesh.workloads(), vec![]);
        mesh.wait_ready("server");
    }
}

#[test]
fn a_control_plane_that_takes_no_connection_is_given_up_and_tried_again() {
    let mesh = Mesh::new();
    let at = SocketAddr::from((mesh.ip(9), 15_010));
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.set_reuse_address(true).unwrap();
    full.bind(&at.into()).unwrap();
    full.listen(0).unwrap();
    // The kernel answers no more once its queue is full.
    let brief = Duration::from_millis(300);
    let waiting: Vec<_> = (0..8)
        .map_while(|_| TcpStream::connect_timeout(&at, brief).ok())
        .collect();
    assert!(waiting.len() < 8, "the queue never fills");
    let began = clock::now();
    let server = mesh.launch("server", &format!("http://{at}"), &[]);
    let given_up = format!("no connection to {at}: timed out");
    server.process().wait_output(&given_up, PATIENCE);
    assert!(began.elapsed() >= Duration::from_secs(5));
    drop((full, waiting));
    let plane = Plane::again(at);
    let _stream = plane.stream_with(mesh.workloads(), vec![]);
    mesh.wait_ready("server");
}

#[test]
fn the_kernel_watches_over_an_idle_connection_to_the_control_plane() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let server = mesh.launch("server", &plane.url(), &[]);
    let _stream = plane.stream_with(mesh.workloads(), vec![]);
    mesh.wait_ready("server");
    let sockets = server.process().sockets();
    let to_plane = sockets.iter().map(SockRef::from).find(|socket| {
        let peer = socket.peer_addr().ok().and_then(|peer| peer.as_socket());
        peer == Some(plane.address())
    });
    let socket = to_plane.expect("the connection");
    assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
    let times = [socket.tcp_keepalive_time(), socket.tcp_keepalive_interval()];
    let times = times.map(|time| time.unwrap().as_secs());
    assert_eq!(
        (times, socket.tcp_keepalive_retries().unwrap()),
        ([300, 75], 9)
    );
}

/// Forwards to `to` until it is told to keep everything for itself, without closing anything.
fn forgetful(to: SocketAddr, silent: &Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind((to.ip(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let silent = Arc::clone(silent);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else {
                return;
            };
            let ways = [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            ];
            for (mut from, mut to) in ways {
                let silent = Arc::clone(&silent);
                thread::spawn(move || {
                    let mut buffer = [0; 16 * 1024];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        let kept = silent.load(Ordering::Relaxed);
                        if !kept && to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
    at
}

#[test]
#[ignore = "long: three quarters of a minute"]
fn a_control_plane_that_falls_silent_is_left_and_connected_to_anew() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let silent = Arc::<AtomicBool>::default();
    let way = forgetful(plane.address(), &silent);
    let server = mesh.launch("server", &format!("http://{way}"), &[]);
    let mut stream = plane.stream_with(mesh.workloads(), vec![]);
    mesh.wait_ready("server");
    stream.push(ADDRESS, vec![], &[]);
    silent.store(true, Ordering::Relaxed);
    let fell_silent = clock::now();
    clock::wait_for("the end of the stream", Duration::from_mins(1), || {
        server
            .process()
            .output()
            .contains("stream ended")
            .then_some(())
    });
    let noticed = fell_silent.elapsed();
    println!("noticed after {noticed:?}");
    // A PING each 30 s, 10 s for its answer.
    assert!(noticed < Duration::from_secs(45), "{noticed:?}");
    silent.store(false, Ordering::Relaxed);
    let _stream = plane.stream_with(mesh.workloads(), vec![]);
    assert!(server.is_ready());
}
