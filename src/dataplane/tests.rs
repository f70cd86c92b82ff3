//! Whole shards under test: real sockets on loopback, both drivers.

mod across;
mod capture;
mod certificates;
mod conversations;
mod demand;
mod drain;
mod faults;
mod hostnames;
mod life;
mod limits;
mod memory;
mod node;
mod plain;
mod policies;
mod pool;
mod processes;
mod revoked;
mod socks;
mod tunnel;
