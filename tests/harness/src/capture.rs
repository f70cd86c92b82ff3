//! The capture rules of a host, as nftables text.
//!
//! Outbound TCP goes to 15001 and inbound TCP to 15006, except what the node itself sends (packet
//! mark 0x539), what stays on loopback, and HBONE. Connections that the node opens towards the local
//! application with the client's address as source are marked, so that the application's answers
//! come back to the node instead of leaving the host.

use crate::hosts::{Family, Host};

/// Packet mark of the node's own sockets (`PACKET_MARK=1337`).
pub const NODE_MARK: u32 = 0x539;

/// Connection mark of connections the node opened towards a local application.
const LOCAL_MARK: u32 = 0x111;

/// The user id whose connections are never captured: a test uses it for "uncaptured" programs.
pub const EXEMPT_UID: u32 = 65_533;

/// The whole rule set.
#[must_use]
pub fn rules() -> String {
    format!(
        "table inet corelane_capture {{
    chain remember {{
        type filter hook prerouting priority mangle; policy accept;
        meta mark & 0xfff == {NODE_MARK:#x} ct mark set {LOCAL_MARK:#x}
    }}
    chain recall {{
        type route hook output priority mangle; policy accept;
        ct mark & 0xfff == {LOCAL_MARK:#x} meta mark set ct mark
    }}
    chain outbound {{
        type nat hook output priority -100; policy accept;
        meta l4proto != tcp return
        meta mark & 0xfff == {NODE_MARK:#x} return
        ct mark & 0xfff == {LOCAL_MARK:#x} return
        meta skuid {EXEMPT_UID} return
        oifname \"lo\" return
        meta l4proto tcp redirect to :15001
    }}
    chain inbound {{
        type nat hook prerouting priority dstnat; policy accept;
        meta l4proto != tcp return
        meta mark & 0xfff == {NODE_MARK:#x} return
        iifname \"lo\" return
        tcp dport 15008 return
        meta l4proto tcp redirect to :15006
    }}
}}
"
    )
}

/// Captures the traffic of `host`.
///
/// # Panics
/// If nft or ip refuses.
pub fn apply(host: &Host) {
    host.apply_nft(&rules());
    for (family, everything) in [(Family::V4, "0.0.0.0/0"), (Family::V6, "::/0")] {
        host.apply_ip(
            family,
            &format!(
                "rule add fwmark {LOCAL_MARK:#x}/0xfff lookup 100\n\
                 route add local {everything} dev lo table 100\n"
            ),
        );
    }
}

/// Silently drops what one local TCP port sends and receives on loopback: its peer sees an
/// application that has vanished.
///
/// # Panics
/// If nft refuses.
pub fn drop_port(host: &Host, port: u16) {
    host.apply_nft(&format!(
        "table inet corelane_drop_{port} {{
    chain vanish {{
        type filter hook input priority -500; policy accept;
        iifname \"lo\" tcp sport {port} drop
        iifname \"lo\" tcp dport {port} drop
    }}
}}
"
    ));
}

/// Silently drops all packets between `host` and the network.
///
/// # Panics
/// If nft refuses.
pub fn cut_off(host: &Host) {
    host.apply_nft(
        "table inet corelane_cut {
    chain into { type filter hook input priority -500; policy accept; iifname \"eth0\" drop; }
    chain out { type filter hook output priority -500; policy accept; oifname \"eth0\" drop; }
}
",
    );
}
