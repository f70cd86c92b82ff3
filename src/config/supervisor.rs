//! What the service manager that started this process told it in the environment (systemd's
//! sd_notify(3) and sd_watchdog_enabled(3)). Not settings, so `raw` does not read them: whoever writes
//! the unit gives them.

use std::ffi::OsString;
use std::time::Duration;

/// How the service manager wants to hear from this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supervisor {
    /// Socket it listens on: an absolute path, or `@` and an abstract name. None: nobody listens.
    pub socket: Option<OsString>,
    /// It ends the process after this long without a sign of life. None: it does not.
    pub watchdog: Option<Duration>,
}

impl Supervisor {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::read(&|name| std::env::var_os(name), std::process::id())
    }

    fn read(variable: &dyn Fn(&str) -> Option<OsString>, own_pid: u32) -> Self {
        let socket = variable("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        let number = |name| -> Option<u64> { variable(name)?.to_str()?.parse().ok() };
        // Meant for another process: this one was started by the one that is watched.
        let for_another = variable("WATCHDOG_PID").is_some()
            && number("WATCHDOG_PID") != Some(u64::from(own_pid));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && !for_another);
        Self {
            watchdog: watchdog
                .filter(|_| socket.is_some())
                .map(Duration::from_micros),
            socket,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Supervisor {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Supervisor::read(&variable, 7)
    }

    #[test]
    fn without_variables_nobody_listens() {
        assert_eq!(read(&[]), Supervisor::default());
        assert_eq!(read(&[("NOTIFY_SOCKET", "")]), Supervisor::default());
    }

    #[test]
    fn socket_and_watchdog_are_read() {
        let found = read(&[
            ("NOTIFY_SOCKET", "@notify"),
            ("WATCHDOG_USEC", "10000000"),
            ("WATCHDOG_PID", "7"),
        ]);
        assert_eq!(found.socket, Some("@notify".into()));
        assert_eq!(found.watchdog, Some(Duration::from_secs(10)));
    }

    #[test]
    fn a_watchdog_for_another_process_or_of_no_length_is_none() {
        let socket = ("NOTIFY_SOCKET", "/run/notify");
        for variables in [
            &[socket, ("WATCHDOG_USEC", "10"), ("WATCHDOG_PID", "8")][..],
            &[socket, ("WATCHDOG_USEC", "10"), ("WATCHDOG_PID", "x")],
            &[socket, ("WATCHDOG_USEC", "0")],
            &[socket, ("WATCHDOG_USEC", "soon")],
            &[("WATCHDOG_USEC", "10")],
        ] {
            assert_eq!(read(variables).watchdog, None, "{variables:?}");
        }
    }
}
