//! Files for packagers and guides for operators: each is read as its user would read it and compared
//! with the built program, so that nothing is shipped or written that does not hold.

#[cfg(test)]
#[path = "packaging/chart.rs"]
mod chart;
#[cfg(test)]
#[path = "packaging/guides.rs"]
mod guides;
#[cfg(test)]
#[path = "packaging/hosts.rs"]
mod hosts;
#[cfg(test)]
#[path = "packaging/image.rs"]
mod image;
#[cfg(test)]
#[path = "packaging/kubernetes.rs"]
mod kubernetes;
#[cfg(test)]
#[path = "packaging/packages.rs"]
mod packages;
#[cfg(test)]
#[path = "packaging/seccomp.rs"]
mod seccomp;
#[cfg(test)]
#[path = "packaging/supervised.rs"]
mod supervised;
#[cfg(test)]
#[path = "packaging/systemd.rs"]
mod systemd;

#[cfg(test)]
use reading::{Printed, config_show, run, text};

#[cfg(test)]
mod reading {
    use std::path::Path;
    use std::process::Command;

    /// A file of this repository.
    #[track_caller]
    pub(crate) fn text(path: &str) -> String {
        let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(full).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// What a command of the program printed.
    #[derive(Debug)]
    pub(crate) struct Printed {
        pub(crate) succeeded: bool,
        pub(crate) out: String,
        pub(crate) err: String,
    }

    impl Printed {
        /// The value of a setting in what `config show` printed.
        pub(crate) fn value(&self, name: &str) -> Option<&str> {
            let line = self.out.lines().find_map(|line| line.strip_prefix(name));
            line.filter(|rest| rest.is_empty() || rest.starts_with(' '))
                .map(str::trim)
        }
    }

    /// Runs the program with these arguments and this environment alone, in `dir`.
    pub(crate) fn run(arguments: &[&str], env: &[(&str, &str)], dir: &Path) -> Printed {
        let output = Command::new(env!("CARGO_BIN_EXE_corelane"))
            .args(arguments)
            .env_clear()
            .envs(env.iter().copied())
            .current_dir(dir)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Printed {
            succeeded: output.status.success(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// The settings that a node with this environment and these arguments would start with.
    pub(crate) fn config_show(arguments: &[&str], env: &[(&str, &str)], dir: &Path) -> Printed {
        run(&[&["config", "show"], arguments].concat(), env, dir)
    }
}
