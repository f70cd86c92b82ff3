//! The built program as a DNS server: real queries by UDP and TCP, against a state file and a name
//! server of the test.

#[cfg(test)]
mod dns {
    use std::io::{self, Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use corelane_harness::http;
    use corelane_harness::loopback::Block;
    use corelane_harness::node::{Addresses, Node};
    use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    /// Longest wait for an answer; only a defect reaches it.
    const PATIENCE: Duration = Duration::from_secs(20);

    const STATE: &str = r#"
workloads:
- uid: cluster1//Pod/default/client
  name: client
  namespace: default
  serviceAccount: client
  workloadIps: ["127.0.0.1"]
  canonicalName: client
  canonicalRevision: v1
  services: {}
- uid: cluster1//Pod/default/far
  name: far
  namespace: default
  serviceAccount: far
  workloadIps: []
  hostname: far.test
  services: {"default/far.default.svc.cluster.local": {80: FAR_PORT}}
services:
- name: web
  namespace: default
  hostname: web.default.svc.cluster.local
  vips: ["/10.7.0.1"]
  ports: {80: 8080}
- name: far
  namespace: default
  hostname: far.default.svc.cluster.local
  vips: ["/127.7.7.7"]
  ports: {80: FAR_PORT}
policies: []
"#;

    /// Answers every name with one address, whoever asks. `None`: port 53 takes privileges.
    fn name_server(ip: Ipv4Addr, answer: Ipv4Addr) -> Option<()> {
        let socket = match UdpSocket::bind((ip, 53)) {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            Err(error) => panic!("{error}"),
        };
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let mut reply = Message::response(asked.metadata.id, OpCode::Query);
                reply.add_queries(asked.queries.iter().cloned());
                let name = asked.queries[0].name().clone();
                if name.to_string().starts_with("missing.") {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                } else if asked.queries[0].query_type() == RecordType::A {
                    reply.add_answer(Record::from_rdata(name, 60, RData::A(A(answer))));
                }
                socket.send_to(&reply.to_vec().unwrap(), from).unwrap();
            }
        });
        Some(())
    }

    struct World {
        node: Node,
        dns: SocketAddr,
        forward: SocketAddr,
        far: TcpListener,
        name_server: Option<()>,
        _dir: tempfile::TempDir,
    }

    fn start() -> World {
        let block = Block::take();
        let dir = tempfile::tempdir().unwrap();
        let far = TcpListener::bind((block.ip(7), 0)).unwrap();
        let name_server = name_server(block.ip(53), block.ip(7));
        let state = STATE.replace("FAR_PORT", &far.local_addr().unwrap().port().to_string());
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("state.yaml", &state);
        write(
            "resolv.conf",
            &format!("nameserver {}\noptions timeout:5\n", block.ip(53)),
        );
        let (dns, forward): (SocketAddr, SocketAddr) =
            ((block.ip(1), 15_053).into(), (block.ip(1), 8_001).into());
        let addresses = Addresses::at(block.ip(1));
        let Addresses {
            admin,
            stats,
            readiness,
        } = addresses;
        write(
            "corelane.yaml",
            &format!(
                "mode: dedicated
workload: default/client/client
enableProxy: false
shards: {{count: 1}}
localState: state.yaml
listeners:
  dns: \"{dns}\"
  admin: \"{admin}\"
  stats: \"{stats}\"
  readiness: \"{readiness}\"
dns: {{resolvConf: resolv.conf}}
forwards:
- {{listen: \"{forward}\", to: \"127.7.7.7:80\"}}
log: {{filter: \"info,dns=debug\"}}
"
            ),
        );
        let node = Node::start("node", command(dir.path()), None, addresses, dir.path());
        World {
            node,
            dns,
            forward,
            far,
            name_server,
            _dir: dir,
        }
    }

    fn command(dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
        command
            .arg("proxy")
            .arg("--config")
            .arg(dir.join("corelane.yaml"))
            .env_clear();
        command
    }

    fn asking(name: &str, record_type: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
        message
    }

    fn udp(to: SocketAddr, query: &Message) -> Message {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(&query.to_vec().unwrap(), to).unwrap();
        let mut buffer = [0; 4_096];
        let length = socket.recv(&mut buffer).unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    fn tcp(to: SocketAddr, query: &Message) -> Message {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let query = query.to_vec().unwrap();
        let length = u16::try_from(query.len()).unwrap();
        stream
            .write_all(&[&length.to_be_bytes(), &*query].concat())
            .unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).unwrap();
        Message::from_vec(&reply).unwrap()
    }

    fn answers(reply: &Message) -> Vec<String> {
        reply.answers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_of_the_state_file_are_answered_and_others_forwarded() {
        let world = start();
        for ask in [udp, tcp] {
            let reply = ask(world.dns, &asking("web.default.", RecordType::A));
            assert_eq!(answers(&reply), ["web.default. 30 IN A 10.7.0.1"]);
            assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
            let reply = ask(world.dns, &asking("web.", RecordType::AAAA));
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
            assert!(reply.answers.is_empty());
        }
        let labels = |protocol| {
            [
                ("request_query_type", "a"),
                ("request_protocol", protocol),
                ("source_canonical_service", "client"),
                ("source_canonical_revision", "v1"),
            ]
        };
        for protocol in ["udp", "tcp"] {
            let metric = "istio_dns_requests_total";
            world.node.wait_metric(metric, &labels(protocol), 1);
        }
        let process = world.node.process();
        process.wait_output("domain=\"web.default.\"", PATIENCE);
        let log = process.output();
        let line = log.lines().find(|line| line.contains("web.default."));
        let line = line.unwrap_or_else(|| panic!("no line:\n{log}"));
        for field in [
            "src.workload=\"client\"",
            "query=A",
            "domain=\"web.default.\"",
            "result=\"success\"",
            "endpoints=1",
        ] {
            assert!(line.contains(field), "{field} in {line}");
        }
        if world.name_server.is_none() {
            return;
        }
        for ask in [udp, tcp] {
            let reply = ask(world.dns, &asking("www.test.", RecordType::A));
            assert_eq!(reply.answers.len(), 1);
            assert!(!reply.metadata.authoritative);
            let reply = ask(world.dns, &asking("missing.test.", RecordType::A));
            assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        }
        let metric = "istio_dns_upstream_failures_total";
        world.node.wait_metric(metric, &[], 2);
    }

    #[test]
    fn a_workload_known_by_hostname_is_reached_and_each_connection_is_counted() {
        let world = start();
        if world.name_server.is_none() {
            return;
        }
        for _ in 0..2 {
            let mut client = TcpStream::connect(world.forward).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let (mut server, _) = world.far.accept().unwrap();
            server.write_all(b"hello").unwrap();
            drop(server);
            let mut received = String::new();
            client.read_to_string(&mut received).unwrap();
            assert_eq!(received, "hello");
        }
        let labels = [
            ("hostname", "far.test"),
            ("source_canonical_service", "client"),
        ];
        let metric = "istio_on_demand_dns_total";
        world.node.wait_metric(metric, &labels, 2);
    }

    #[test]
    fn the_dump_shows_the_proxy_and_readiness_waits_for_it() {
        let world = start();
        let dump = world.node.admin("GET", "/config_dump").body;
        let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
        let config = &dump["config"];
        assert_eq!(config["dnsProxy"], true);
        assert_eq!(config["dnsProxyAddr"]["SocketAddr"], world.dns.to_string());
        let process = world.node.process();
        process.wait_output("task 'dns proxy' complete", PATIENCE);
    }

    #[test]
    fn without_a_name_server_the_proxy_does_not_start() {
        let block = Block::take();
        let dir = tempfile::tempdir().unwrap();
        let ip = block.ip(1);
        std::fs::write(dir.path().join("state.yaml"), "workloads: []\n").unwrap();
        std::fs::write(dir.path().join("resolv.conf"), "search test\n").unwrap();
        let config = format!(
            "mode: node\nenableProxy: false\nlocalState: state.yaml\nshards: {{count: 1}}\n\
             dns: {{resolvConf: resolv.conf}}\nlisteners: {{dns: \"{ip}:15053\", admin: off, \
             stats: off, readiness: off}}\n"
        );
        std::fs::write(dir.path().join("corelane.yaml"), config).unwrap();
        let addresses = Addresses::at(ip);
        let mut node = Node::launch("node", command(dir.path()), None, addresses, dir.path());
        let status = node.process_mut().wait_end(PATIENCE);
        assert_eq!(status.code(), Some(1));
        let log = node.process().output();
        assert!(log.contains("no name servers"), "{log}");
        assert!(http::request("GET", addresses.admin, "/").is_err());
    }
}
