//! Options of the sockets a shard accepts and dials, from the configuration.

use super::shard::Shard;
use crate::config::limits::{TUNNEL_KEEPALIVE, TUNNEL_KEEPALIVE_RETRIES, TUNNEL_USER_TIMEOUT};
use crate::sys::socket::{ConnectionOptions, Keepalive};

impl Shard {
    /// Options of sockets that carry a workload's own connection.
    pub(crate) fn connection_options(&self) -> ConnectionOptions {
        let socket = &self.config.socket;
        ConnectionOptions {
            keepalive: socket.keepalive.map(|keepalive| Keepalive {
                time: keepalive.time,
                interval: keepalive.interval,
                retries: keepalive.retries,
            }),
            user_timeout: socket.user_timeout(),
            ..self.tuned_options()
        }
    }

    /// Options of sockets that carry tunnels: a dead peer must be noticed soon.
    pub(crate) fn tunnel_options(&self) -> ConnectionOptions {
        let keepalive = Keepalive {
            time: TUNNEL_KEEPALIVE,
            interval: TUNNEL_KEEPALIVE,
            retries: TUNNEL_KEEPALIVE_RETRIES,
        };
        ConnectionOptions {
            keepalive: Some(keepalive),
            user_timeout: Some(TUNNEL_USER_TIMEOUT),
            notsent_lowat: self.config.tuning.notsent_lowat_bytes,
            ..self.tuned_options()
        }
    }

    /// What the expert section says about all of them.
    fn tuned_options(&self) -> ConnectionOptions {
        let tuning = &self.config.tuning;
        ConnectionOptions {
            receive_buffer: tuning.receive_buffer_bytes,
            send_buffer: tuning.send_buffer_bytes,
            busy_poll: tuning.busy_poll_micros,
            ..ConnectionOptions::default()
        }
    }
}
