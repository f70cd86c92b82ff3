//! End-to-end tests: two nodes on two captured hosts (network namespaces), a third host outside the
//! mesh, real applications. Needs root; without it each test says "skipped", or fails if
//! `REQUIRE_NETNS=1`. The part of a test that needs a writable cgroup v2 is skipped alone, or fails if
//! `REQUIRE_CGROUP=1`.
//!
//! Sizes from the environment: `CONVERSATIONS` (500; the full run is 10000), `CONVERSATIONS_SEED`,
//! `LIVE_CONNECTIONS` (1000), `SHARED_ROUNDS` (1000, of the ignored test with 110 pods).

/// The program under test.
#[cfg(test)]
const CORELANE: &str = env!("CARGO_BIN_EXE_corelane");

/// Makes one test for each driver out of a function that takes the driver.
#[cfg(test)]
macro_rules! with_both_drivers {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use corelane_harness::node::Driver;
            use corelane_harness::requirements::has_netns;

            #[test]
            fn io_uring() {
                if has_netns(concat!(stringify!($name), "::io_uring")) {
                    super::$name(Driver::IoUring);
                }
            }

            #[test]
            fn epoll() {
                if has_netns(concat!(stringify!($name), "::epoll")) {
                    super::$name(Driver::Epoll);
                }
            }
        }
    )+};
}

#[cfg(test)]
mod authorize;
#[cfg(test)]
mod balance;
#[cfg(test)]
mod capture;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod conversations;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod dump;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fidelity;
#[cfg(test)]
mod hbone;
#[cfg(test)]
mod host_network;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod live;
#[cfg(test)]
mod loops;
#[cfg(test)]
mod malformed;
#[cfg(test)]
mod node_mode;
#[cfg(test)]
mod operate;
#[cfg(test)]
mod options;
#[cfg(test)]
mod passthrough;
#[cfg(test)]
mod recheck;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod socks;
#[cfg(test)]
mod takeover;
#[cfg(test)]
mod waypoint;
