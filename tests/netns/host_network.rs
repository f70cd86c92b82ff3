//! Pods that share the address of their machine (routing 1.2 and 9): a service finds each of them, the
//! address alone means nobody.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use corelane_harness::access_log::AccessLine;
use corelane_harness::apps::{self, Server};
use corelane_harness::fleet::Fleet;
use corelane_harness::node::Driver;
use corelane_harness::state::{State, Workload};

use crate::CORELANE;

with_both_drivers!(pods_that_share_an_address_are_told_apart_by_their_services_alone);

/// The pods, with the port of each and the last octet of its service's address.
const PODS: [(&str, u16, u8); 2] = [("agent", 8_081, 1), ("exporter", 8_082, 2)];

fn service(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, 0, last)
}

fn state(fleet: &Fleet) -> State {
    let state = State::default().workload(&Workload {
        name: "client",
        ips: &fleet.ips("client"),
        hbone: true,
        services: &[],
    });
    PODS.iter().fold(state, |state, (name, port, last)| {
        state
            .workload(&Workload {
                name,
                ips: &fleet.ips("machine"),
                hbone: false,
                services: &[(name, 80, *port)],
            })
            .workload_with("networkMode: HostNetwork")
            .service(name, &[IpAddr::V4(service(*last))], 80, *port)
    })
}

fn pods_that_share_an_address_are_told_apart_by_their_services_alone(driver: Driver) {
    let fleet = Fleet::new(CORELANE, &["client", "machine"]);
    fleet.publish(&state(&fleet).to_yaml());
    let node = fleet.start_node("client", &[("CORELANE_DRIVER", driver.as_str())]);
    let _apps = PODS.map(|(name, port, _)| {
        Server::start(
            &fleet.host("machine"),
            port,
            move |mut stream: TcpStream| {
                let _ = stream.write_all(name.as_bytes());
            },
        )
    });
    let ask = |to: SocketAddr| {
        let answer = fleet.host("client").enter(|| apps::exchange(to, b""));
        String::from_utf8(answer.unwrap()).unwrap()
    };
    let line = |port: u16, workload: &str| -> AccessLine {
        let to = fleet.at("machine", port).to_string();
        let fields = [("dst.addr", &*to), ("dst.workload", workload)];
        node.wait_access_line("connection complete", &fields)
    };
    for (name, port, last) in PODS {
        assert_eq!(ask((service(last), 80).into()), name);
        let by_service = line(port, name);
        assert!(by_service.field("dst.service").starts_with(name));
        assert_eq!(by_service.field("dst.hbone_addr"), "");
        // The same program at the machine's address is nobody the mesh knows.
        assert_eq!(ask(fleet.at("machine", port)), name);
        let by_address = line(port, "");
        assert_eq!(by_address.field("dst.service"), "");
        assert_eq!(by_address.field("dst.namespace"), "");
    }
}
