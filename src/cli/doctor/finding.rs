//! One finding of the doctor, and the constant part of what a check says.

use super::tree::Unknown;

/// How bad it is, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing suffers under ordinary load.
    Note,
    /// Costs speed, or fails under load.
    Warning,
    /// The node will not start, or will not do what its configuration says.
    Problem,
}

impl Level {
    /// Name in texts and JSON.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// What a finding is about, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// Kernel and clock.
    Kernel,
    /// CPUs and shards.
    Cpu,
    /// Rings.
    IoUring,
    /// Open files.
    Descriptors,
    /// Pipes of splice.
    Pipes,
    /// Ports and queues of connections.
    Ports,
    /// Connection tracking.
    Conntrack,
    /// TCP.
    Tcp,
    /// Network cards.
    Network,
    /// Capabilities.
    Privileges,
    /// Tuning profiles.
    Profiles,
}

impl Group {
    /// Name in texts and JSON.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Cpu => "cpu",
            Self::IoUring => "io_uring",
            Self::Descriptors => "descriptors",
            Self::Pipes => "pipes",
            Self::Ports => "ports",
            Self::Conntrack => "conntrack",
            Self::Tcp => "tcp",
            Self::Network => "network",
            Self::Privileges => "privileges",
            Self::Profiles => "profiles",
        }
    }
}

/// What was looked at and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Stable name, such as `ports.range`; with a device or sysctl where there are several.
    pub(super) id: String,
    /// What it is about.
    pub(super) group: Group,
    /// How bad it is.
    pub(super) level: Level,
    /// Name for people.
    pub(super) subject: String,
    /// What was found.
    pub(super) found: String,
    /// What it does to a node, one sentence.
    pub(super) effect: String,
    /// Command that changes it; `None`: nothing to change, or not by a command.
    pub(super) command: Option<String>,
    /// Profiles that want it otherwise.
    pub(super) profiles: Vec<&'static str>,
}

/// The constant part of a check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    /// See [`Finding::id`].
    pub(super) id: &'static str,
    /// See [`Finding::group`].
    pub(super) group: Group,
    /// See [`Finding::subject`].
    pub(super) subject: &'static str,
    /// See [`Finding::effect`].
    pub(super) effect: &'static str,
}

impl Check {
    /// As it should be.
    pub(super) fn ok(&self, found: impl Into<String>) -> Finding {
        self.finding(Level::Ok, found.into(), None)
    }

    /// Worth knowing.
    pub(super) fn note(&self, found: impl Into<String>, command: impl Into<String>) -> Finding {
        self.finding(Level::Note, found.into(), Some(command.into()))
    }

    /// Costs speed or fails under load.
    pub(super) fn warning(&self, found: impl Into<String>, command: impl Into<String>) -> Finding {
        self.finding(Level::Warning, found.into(), Some(command.into()))
    }

    /// Fails.
    pub(super) fn problem(&self, found: impl Into<String>, command: impl Into<String>) -> Finding {
        self.finding(Level::Problem, found.into(), Some(command.into()))
    }

    /// The fact is not known.
    pub(super) fn unknown(&self, why: &Unknown) -> Finding {
        self.finding(Level::Note, why.to_string(), None)
    }

    fn finding(&self, level: Level, found: String, command: Option<String>) -> Finding {
        Finding {
            id: self.id.to_owned(),
            group: self.group,
            level,
            subject: self.subject.to_owned(),
            found,
            effect: self.effect.to_owned(),
            command: command.filter(|command| !command.is_empty()),
            profiles: Vec::new(),
        }
    }
}

impl Finding {
    /// The same for one of several devices.
    pub(super) fn of(mut self, device: &str) -> Self {
        self.id = format!("{}.{device}", self.id);
        self.subject = format!("{device} {}", self.subject);
        self
    }

    /// With an effect of its own.
    pub(super) fn because(mut self, effect: impl Into<String>) -> Self {
        self.effect = effect.into();
        self
    }
}
