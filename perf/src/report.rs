//! What a run looks like to people: text, one JSON file, and one HTML page.

mod chart;
mod figures;
mod html;
mod text;

use std::fs;
use std::path::Path;

pub use figures::{number, with_spread};
pub use text::text;

use crate::error::{Error, Result};
use crate::results::Results;

/// Writes `report.txt`, `results.json` and `report.html` into `dir`, and `profiles.txt` if there are any.
///
/// # Errors
/// If the file system refuses.
pub fn write(results: &Results, dir: &Path) -> Result<()> {
    let write = |name: &str, content: &str| {
        let path = dir.join(name);
        fs::write(&path, content).map_err(Error::io(path.display().to_string()))
    };
    fs::create_dir_all(dir).map_err(Error::io(dir.display().to_string()))?;
    let json = serde_json::to_string_pretty(results).map_err(|e| Error::Unreadable {
        what: "results".into(),
        why: e.to_string(),
    })?;
    write("results.json", &json)?;
    write("report.txt", &text(results))?;
    if !results.profiles.is_empty() {
        write("profiles.txt", &text::profiles(results))?;
    }
    write("report.html", &html::page(results)?)
}

#[cfg(test)]
mod tests;
