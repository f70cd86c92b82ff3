//! Entering a network namespace.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Moves the calling thread into the network namespace behind `namespace`, for the rest of the
/// thread's life: sockets it opens from now on belong there. See setns(2).
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN; `EINVAL` when the descriptor is no network namespace.
pub fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace,
        Some(LinkNameSpaceType::Network),
    )?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_no_namespace_is_refused() {
        let file = File::open("/dev/null").unwrap();
        assert!(enter(file.as_fd()).is_err());
    }
}
