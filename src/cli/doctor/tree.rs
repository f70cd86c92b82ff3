//! Facts of the host as files: `/proc` and `/sys` below a root that tests replace.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::config::raw::read_bounded;

/// The files read here are short; a longer one is not what we take it for.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// `/proc` and `/sys` of a host.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
}

/// Why a fact is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unknown {
    /// The kernel does not offer it.
    #[error("not there")]
    Absent,
    /// It may not be read.
    #[error("not readable: {0}")]
    Unreadable(String),
    /// Its text is not what the kernel's documentation says.
    #[error("not understood: `{0}`")]
    Odd(String),
}

/// A fact, or why it is not known.
pub(super) type Fact<T> = Result<T, Unknown>;

impl Tree {
    /// Paths are relative to `root`, `/` on a real host.
    pub(super) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Text of a file without white space around it.
    pub(super) fn text(&self, path: &str) -> Fact<String> {
        match read_bounded(&self.root.join(path), FILE_BYTES_MAX) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Unknown::Absent),
            Err(error) => Err(Unknown::Unreadable(error.to_string())),
        }
    }

    /// The one number in a file.
    pub(super) fn number(&self, path: &str) -> Fact<u64> {
        let text = self.text(path)?;
        text.parse().map_err(|_| Unknown::Odd(text))
    }

    /// All numbers in a file.
    pub(super) fn numbers(&self, path: &str) -> Fact<Vec<u64>> {
        let text = self.text(path)?;
        let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
        match numbers {
            Ok(numbers) if !numbers.is_empty() => Ok(numbers),
            _ => Err(Unknown::Odd(text)),
        }
    }

    /// Number of a sysctl such as `net.core.somaxconn`.
    pub(super) fn sysctl(&self, name: &str) -> Fact<u64> {
        self.number(&sysctl_path(name))
    }

    /// Names in a folder, sorted; none when it cannot be read.
    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(folder)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Whether a path exists.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

/// File of a sysctl.
pub(super) fn sysctl_path(name: &str) -> String {
    format!("proc/sys/{}", name.replace('.', "/"))
}

/// CPUs of a mask such as `00000000,00000003`: groups of 32 bits, the last ones lowest.
pub(super) fn cpus_of_mask(text: &str) -> Option<BTreeSet<usize>> {
    let mut cpus = BTreeSet::new();
    for (group, digits) in text.split(',').rev().enumerate() {
        let bits = u32::from_str_radix(digits.trim(), 16).ok()?;
        cpus.extend(
            (0..32)
                .filter(|bit| bits & (1 << bit) != 0)
                .map(|bit| group * 32 + bit),
        );
    }
    Some(cpus)
}

/// CPUs of a list such as `0-3,8`.
pub(super) fn cpus_of_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut cpus = BTreeSet::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last.checked_sub(first)? > 65_536 {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// The mask that [`cpus_of_mask`] reads.
pub(super) fn mask_of(cpus: impl IntoIterator<Item = usize>) -> String {
    let cpus: BTreeSet<usize> = cpus.into_iter().collect();
    let groups = cpus.last().map_or(0, |last| last / 32) + 1;
    let group = |index: usize| {
        let bits = cpus.iter().filter(|cpu| *cpu / 32 == index);
        bits.fold(0_u32, |mask, cpu| mask | 1 << (cpu % 32))
    };
    let mut text = format!("{:x}", group(groups - 1));
    for index in (0..groups - 1).rev() {
        text = format!("{text},{:08x}", group(index));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_lists_of_cpus_are_read_as_the_kernel_writes_them() {
        let set = |cpus: &[usize]| Some(cpus.iter().copied().collect::<BTreeSet<_>>());
        for (text, cpus) in [
            ("0", &[][..]),
            ("3", &[0, 1]),
            ("00000000,00000003", &[0, 1]),
            ("1,80000000", &[31, 32]),
        ] {
            assert_eq!(cpus_of_mask(text), set(cpus), "{text}");
        }
        for (text, cpus) in [("", &[][..]), ("5", &[5]), ("0-2,7", &[0, 1, 2, 7])] {
            assert_eq!(cpus_of_list(text), set(cpus), "{text}");
        }
        assert_eq!(cpus_of_mask("3g"), None);
        for text in ["a", "3-1", "0-99999999"] {
            assert_eq!(cpus_of_list(text), None, "{text}");
        }
    }

    #[test]
    fn a_written_mask_is_read_back() {
        for cpus in [vec![], vec![0], vec![0, 1, 31], vec![32], vec![1, 33, 64]] {
            let text = mask_of(cpus.clone());
            assert_eq!(
                cpus_of_mask(&text),
                Some(cpus.into_iter().collect()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_fact_that_cannot_be_had_says_why() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("text"), "many\n").unwrap();
        let tree = Tree::new(folder.path());
        assert_eq!(tree.text("text"), Ok("many".to_owned()));
        assert_eq!(tree.number("text"), Err(Unknown::Odd("many".to_owned())));
        assert_eq!(tree.number("other"), Err(Unknown::Absent));
        fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(matches!(tree.text("folder"), Err(Unknown::Unreadable(_))));
        assert_eq!(tree.names("."), ["folder", "text"]);
    }
}
