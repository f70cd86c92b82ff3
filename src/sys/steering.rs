//! Socket options that no safe interface covers: busy polling, a choice of shard by CPU, and source
//! addresses without a port.

#![expect(unsafe_code, reason = "neither socket2 nor rustix sets these options")]

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Instructions of a classic BPF program (BPF_MAXINSNS).
const PROGRAM_MAX: usize = 4_096;

/// Sets SO_BUSY_POLL: microseconds a receive may poll the network card.
///
/// # Errors
/// `EPERM` above `net.core.busy_read` without CAP_NET_ADMIN.
pub fn set_busy_poll(fd: BorrowedFd<'_>, micros: u32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &micros)
}

/// Sets IP_BIND_ADDRESS_NO_PORT, which counts for IPv6 sockets too: bind(2) takes the address alone, the
/// port is chosen by connect(2).
///
/// # Errors
/// `ENOPROTOOPT` before Linux 4.2.
pub fn set_bind_address_no_port(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    set(fd, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, &on)
}

/// Makes the kernel give a connection to the socket of the SO_REUSEPORT group whose position in
/// `cpus` is that of the CPU which received the packet; on other CPUs, to one chosen by its number.
/// `fd` is any socket of the group, all of which are bound, in the order of `cpus`.
///
/// # Errors
/// `EINVAL` without SO_REUSEPORT or for more CPUs than a program can hold.
pub fn steer_by_cpu(fd: BorrowedFd<'_>, cpus: &[usize]) -> io::Result<()> {
    let mut code = program(cpus).ok_or(io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog {
        len: u16::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: code.as_mut_ptr(),
    };
    set(
        fd,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        &program,
    )
}

/// `A = cpu; if A == cpus[0] return 0; …; return A % cpus.len()`.
fn program(cpus: &[usize]) -> Option<Vec<libc::sock_filter>> {
    let count = u32::try_from(cpus.len()).ok().filter(|count| *count > 0)?;
    let op = |code: u32, k: u32, if_not: u8| {
        let code = u16::try_from(code).ok()?;
        Some(libc::sock_filter {
            code,
            jt: 0,
            jf: if_not,
            k,
        })
    };
    let cpu_of_packet = (libc::SKF_AD_OFF + libc::SKF_AD_CPU).cast_unsigned();
    let mut code = vec![op(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        cpu_of_packet,
        0,
    )?];
    for (index, cpu) in (0_u32..).zip(cpus) {
        let cpu = u32::try_from(*cpu).ok()?;
        code.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, cpu, 1)?);
        code.push(op(libc::BPF_RET | libc::BPF_K, index, 0)?);
    }
    code.push(op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, count, 0)?);
    // BPF_A, which the C library's bindings lack: return the accumulator.
    code.push(op(libc::BPF_RET | 0x10, 0, 0)?);
    (code.len() <= PROGRAM_MAX).then_some(code)
}

fn set<T>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).map_err(io::Error::other)?;
    let value = ptr::from_ref(value).cast();
    // JUSTIFICATION: see the top of the file.
    // SAFETY: `fd` is open while borrowed; `value` points to `length` initialised bytes, and what a
    // program in it points to is alive in the caller: the kernel copies both before it returns.
    let status = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value, length) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::sys::affinity::{allowed_cpus, pin_current_thread};
    use crate::sys::socket::{ListenOptions, accept, listen, local_addr};

    /// Two listeners on one port.
    fn group(reuse_port: bool) -> io::Result<(Vec<std::os::fd::OwnedFd>, SocketAddr)> {
        let options = ListenOptions {
            reuse_port,
            backlog: 64,
            ..ListenOptions::default()
        };
        let (first, _) = listen((Ipv4Addr::LOCALHOST, 0).into(), &options)?;
        let addr = local_addr(first.as_fd())?;
        let (second, _) = listen(addr, &options)?;
        Ok((vec![first, second], addr))
    }

    #[test]
    fn connections_go_to_the_socket_of_the_cpu_that_received_them() {
        let cpu = allowed_cpus().unwrap()[0];
        for wanted in [0, 1] {
            let (sockets, addr) = group(true).unwrap();
            // No thread runs on the CPU of the other socket.
            let cpus = if wanted == 0 {
                [cpu, 9_999]
            } else {
                [9_999, cpu]
            };
            steer_by_cpu(sockets[0].as_fd(), &cpus).unwrap();
            std::thread::spawn(move || {
                assert!(pin_current_thread(cpu));
                for _ in 0..16 {
                    drop(TcpStream::connect(addr).unwrap());
                }
            })
            .join()
            .unwrap();
            let count =
                |fd: &std::os::fd::OwnedFd| std::iter::from_fn(|| accept(fd.as_fd()).ok()).count();
            let counts: Vec<usize> = sockets.iter().map(count).collect();
            assert_eq!((counts[wanted], counts[1 - wanted]), (16, 0));
        }
    }

    #[test]
    fn a_socket_outside_a_group_cannot_be_steered() {
        let (socket, _) =
            listen((Ipv4Addr::LOCALHOST, 0).into(), &ListenOptions::default()).unwrap();
        assert!(steer_by_cpu(socket.as_fd(), &[]).is_err());
        let (bound, _) = group(true).unwrap();
        let too_many: Vec<usize> = (0..PROGRAM_MAX).collect();
        assert!(steer_by_cpu(bound[0].as_fd(), &too_many).is_err());
    }

    #[test]
    fn busy_polling_may_be_switched_off_by_anybody() {
        let (socket, _) =
            listen((Ipv4Addr::LOCALHOST, 0).into(), &ListenOptions::default()).unwrap();
        set_busy_poll(socket.as_fd(), 0).unwrap();
    }
}
