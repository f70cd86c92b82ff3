//! Picks the winning candidate of each setting, remembers what was picked and what was wrong.

use super::super::problem::{ConfigErrors, Origin, Problem, ProblemKind, excerpt, nearest};
use super::super::raw::{Candidate, RawConfig};
use super::super::schema::{Key, SETTINGS};
use super::super::value::Kind;
use super::{Checked, Config, Effective};

pub(super) struct Resolver {
    pub(super) raw: RawConfig,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// By position in [`SETTINGS`].
    settings: Vec<Option<Effective>>,
}

impl Resolver {
    pub(super) fn new(mut raw: RawConfig) -> Self {
        let problems = std::mem::take(&mut raw.problems);
        let warnings = std::mem::take(&mut raw.warnings);
        Self {
            raw,
            problems,
            warnings,
            settings: vec![None; SETTINGS.len()],
        }
    }

    /// The result, once everything has been asked for.
    pub(super) fn finish(self, config: Option<Config>) -> Result<Checked, ConfigErrors> {
        debug_assert!(
            config.is_some() || !self.problems.is_empty(),
            "a refusal has a reason"
        );
        match config {
            Some(config) if self.problems.is_empty() => Ok(Checked {
                config,
                warnings: self.warnings,
                settings: self.settings.into_iter().flatten().collect(),
            }),
            _ => Err(ConfigErrors(self.problems)),
        }
    }

    /// The value that wins, and where it comes from. Candidates that lose are parsed too: a wrong
    /// value hidden by a better source would surprise on the day that source goes away.
    pub(super) fn winner<K: Kind>(&mut self, key: Key, kind: &K) -> Option<(K::Value, Origin)> {
        let candidates = self.raw.values.get(&key).cloned().unwrap_or_default();
        let mut winner = None;
        for (index, candidate) in candidates.into_iter().enumerate() {
            match self.parse(key.name(), &candidate, kind) {
                Some(value) if index == 0 => winner = Some((value, candidate.origin)),
                Some(_) | None => {}
            }
        }
        winner
    }

    /// Parses one text of the setting called `name`.
    pub(super) fn parse<K: Kind>(
        &mut self,
        name: &str,
        candidate: &Candidate,
        kind: &K,
    ) -> Option<K::Value> {
        let value = kind.parse(&candidate.text);
        if value.is_none() {
            let kind = ProblemKind::Invalid {
                value: excerpt(&candidate.text),
                expected: kind.expected(),
                nearest: nearest(&candidate.text, kind.words()),
            };
            self.problem_named(candidate.origin.clone(), name, kind);
        }
        value
    }

    /// The value of a setting, or its default.
    pub(super) fn get<K: Kind>(&mut self, key: Key, default: K::Value, kind: &K) -> K::Value {
        let (value, origin) = self.winner(key, kind).unwrap_or((default, Origin::Default));
        self.record(key, kind.show(&value), origin);
        value
    }

    /// The value of a setting without default.
    pub(super) fn optional<K: Kind>(&mut self, key: Key, kind: &K) -> Option<K::Value> {
        self.optional_with_origin(key, kind).map(|(value, _)| value)
    }

    /// The same with its origin.
    pub(super) fn optional_with_origin<K: Kind>(
        &mut self,
        key: Key,
        kind: &K,
    ) -> Option<(K::Value, Origin)> {
        let winner = self.winner(key, kind);
        if let Some((value, origin)) = &winner {
            self.record(key, kind.show(value), origin.clone());
        }
        winner
    }

    /// A switch that, in the environment, only the exact text `true` turns on.
    pub(super) fn only_true(&mut self, key: Key) -> bool {
        let mut odd = Vec::new();
        for candidate in self.raw.values.get_mut(&key).into_iter().flatten() {
            let from_env = matches!(candidate.origin, Origin::Env(_));
            if from_env && !matches!(candidate.text.as_str(), "true" | "false") {
                if !candidate.text.is_empty() {
                    odd.push((candidate.origin.clone(), excerpt(&candidate.text)));
                }
                "false".clone_into(&mut candidate.text);
            }
        }
        for (origin, text) in odd {
            let message = format!("`{text}` leaves this off, only `true` turns it on");
            self.warn(origin, key, ProblemKind::Surprise(message));
        }
        self.get(key, false, &super::Bool)
    }

    /// Whether anybody gave the setting, well or badly.
    pub(super) fn is_given(&self, key: Key) -> bool {
        self.raw
            .values
            .get(&key)
            .is_some_and(|candidates| !candidates.is_empty())
    }

    /// Where the winning candidate comes from.
    pub(super) fn origin_of(&self, key: Key) -> Origin {
        let candidates = self.raw.values.get(&key);
        candidates
            .and_then(|candidates| candidates.first())
            .map_or(Origin::Default, |candidate| candidate.origin.clone())
    }

    /// Remembers the value of a setting.
    pub(super) fn record(&mut self, key: Key, value: String, origin: Origin) {
        let setting = key.setting();
        let effective = Effective {
            name: key.name(),
            value,
            origin,
            about: setting.about,
        };
        self.settings[key as usize] = Some(effective);
    }

    /// Nobody gave a setting that has no default.
    pub(super) fn missing(&mut self, key: Key, expected: &str) {
        if self.raw.file_lost {
            return;
        }
        let mut expected = expected.to_owned();
        let setting = key.setting();
        if let (false, [variable, ..]) = (setting.path.is_empty(), setting.env)
            && !expected.contains(variable)
        {
            expected = format!("{expected} (variable {variable})");
        }
        self.problem(Origin::Default, key, ProblemKind::Missing { expected });
    }

    pub(super) fn problem(&mut self, origin: Origin, key: Key, kind: ProblemKind) {
        self.problem_named(origin, key.name(), kind);
    }

    /// A variable or flag says by itself which setting is meant.
    pub(super) fn problem_named(&mut self, origin: Origin, name: &str, kind: ProblemKind) {
        self.problems.push(Problem {
            setting: setting_for(&origin, name),
            origin,
            kind,
        });
    }

    pub(super) fn warn(&mut self, origin: Origin, key: Key, kind: ProblemKind) {
        self.warn_named(origin, key.name(), kind);
    }

    pub(super) fn warn_named(&mut self, origin: Origin, name: &str, kind: ProblemKind) {
        self.warnings.push(Problem {
            setting: setting_for(&origin, name),
            origin,
            kind,
        });
    }
}

fn setting_for(origin: &Origin, name: &str) -> String {
    match origin {
        Origin::Env(_) | Origin::Flag(_) => String::new(),
        Origin::ProxyConfig(_) | Origin::File(..) | Origin::MeshFile(..) | Origin::Default => {
            name.to_owned()
        }
    }
}
