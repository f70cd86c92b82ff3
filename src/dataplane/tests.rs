//! Whole shards under test: real sockets on loopback, both drivers.

mod capture;
mod conversations;
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
mod socks;
mod tunnel;
