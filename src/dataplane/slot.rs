//! The slot of one connection or stream in its shard: counted, and given back however it ends.

use std::rc::Rc;

use super::shard::Shard;
use crate::telemetry::flow::Direction;

/// One of the shard's connections and streams, from accept to the end of the relay.
#[derive(Debug)]
pub(crate) struct Slot {
    shard: Rc<Shard>,
    /// Of a connection that a listener accepted; a stream has no socket of its own.
    direction: Option<Direction>,
    relayed: bool,
}

impl Slot {
    /// A slot, if one is free.
    pub(super) fn take(shard: &Rc<Shard>, direction: Option<Direction>) -> Option<Self> {
        shard.slots().take().then(|| {
            if let Some(direction) = direction {
                shard.telemetry.counters().connections_open.add(1);
                shard.telemetry.socket_opened(direction);
            }
            Self {
                shard: Rc::clone(shard),
                direction,
                relayed: false,
            }
        })
    }

    pub(super) const fn shard(&self) -> &Rc<Shard> {
        &self.shard
    }

    /// The relay starts; it is counted as open from now on.
    pub(super) fn relayed(mut self) -> Self {
        self.shard.telemetry.counters().relays_open.add(1);
        self.relayed = true;
        self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let telemetry = &self.shard.telemetry;
        if self.relayed {
            telemetry.counters().relays_open.add(-1);
        }
        if let Some(direction) = self.direction {
            telemetry.counters().connections_open.add(-1);
            telemetry.socket_closed(direction);
        }
        self.shard.slots().give_back();
    }
}
