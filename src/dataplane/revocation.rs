//! Ends tunnels whose peer is revoked while they are open.

use super::shard::Shard;
use crate::telemetry::counters::Role;
use crate::tls::revocation::Revocable;

/// Completes, counted, once the peer of a tunnel is revoked. `role` is ours in the tunnel.
///
/// It looks first and waits then, so that a list that came during the handshake counts.
pub(super) async fn revoked(shard: &Shard, peer: Option<&Revocable>, role: Role) {
    let Some(peer) = peer else {
        return std::future::pending().await;
    };
    loop {
        let changed = shard.changed.next();
        if peer.is_revoked() {
            shard.telemetry.counters().crl_rejections(role).add(1);
            return;
        }
        changed.await;
    }
}
