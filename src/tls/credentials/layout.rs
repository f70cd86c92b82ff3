//! The layout of an identity directory: `DIR/ns/NAMESPACE/sa/SERVICE_ACCOUNT/` with three files.
//!
//! The names are those that cert-manager, Vault agents and SPIFFE helpers write.

use std::path::{Component, Path, PathBuf};

/// Leaf and intermediates.
pub const CHAIN_FILE: &str = "tls.crt";
/// Private key.
pub const KEY_FILE: &str = "tls.key";
/// Roots.
pub const ROOTS_FILE: &str = "ca.crt";

/// A name that cannot be one step of a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be a namespace or service account here: it would not be one folder name")]
pub struct NameError(pub String);

/// Folder of one service account. The names come from mesh state, so each must be one plain step:
/// `..` or a slash would lead out of `dir`.
///
/// # Errors
/// [`NameError`].
pub fn folder(dir: &Path, namespace: &str, service_account: &str) -> Result<PathBuf, NameError> {
    Ok(dir
        .join("ns")
        .join(step(namespace)?)
        .join("sa")
        .join(step(service_account)?))
}

fn step(name: &str) -> Result<&str, NameError> {
    let mut components = Path::new(name).components();
    let plain = matches!(
        (components.next(), components.next()),
        (Some(Component::Normal(only)), None) if only == name
    );
    if plain && !name.contains('\0') {
        Ok(name)
    } else {
        Err(NameError(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_make_the_folder() {
        assert_eq!(
            folder(Path::new("/ids"), "default", "a.b-c").unwrap(),
            Path::new("/ids/ns/default/sa/a.b-c")
        );
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [
            "", ".", "..", "a/b", "/", "/etc", "a/", "./a", "../a", "a\0b",
        ] {
            assert!(folder(Path::new("/ids"), name, "a").is_err(), "{name:?}");
            assert!(folder(Path::new("/ids"), "a", name).is_err(), "{name:?}");
        }
    }
}
