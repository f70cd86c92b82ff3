//! Reads what `cargo bench` left behind: targets about single functions are measured there, without a
//! network, and reported here beside the others.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One benchmark's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bench {
    /// `GROUP/PARAMETER`.
    pub name: String,
    /// Median time, nanoseconds.
    pub median_ns: f64,
    /// Its confidence interval, nanoseconds.
    pub low_ns: f64,
    /// Upper end of the interval.
    pub high_ns: f64,
}

/// All results below criterion's folder.
#[must_use]
pub fn read(criterion: &Path) -> Vec<Bench> {
    let mut found = Vec::new();
    for group in folders(criterion) {
        for inner in folders(&group) {
            // Criterion's folders are GROUP/PARAMETER or GROUP/FUNCTION/PARAMETER.
            for place in folders(&inner).into_iter().chain([inner]) {
                let text = fs::read_to_string(place.join("new/estimates.json"));
                let name = place.strip_prefix(criterion).unwrap_or(&place);
                let name = name.to_string_lossy().into_owned();
                found.extend(text.ok().and_then(|text| parse(name, &text)));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn folders(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.is_dir()).collect()
}

fn parse(name: String, estimates: &str) -> Option<Bench> {
    let value: Value = serde_json::from_str(estimates).ok()?;
    let median = &value["median"];
    let interval = &median["confidence_interval"];
    Some(Bench {
        name,
        median_ns: median["point_estimate"].as_f64()?,
        low_ns: interval["lower_bound"].as_f64()?,
        high_ns: interval["upper_bound"].as_f64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTIMATES: &str = r#"{"median": {"point_estimate": 12.5,
        "confidence_interval": {"lower_bound": 12.0, "upper_bound": 13.0}}}"#;

    #[test]
    fn medians_are_found_by_group_function_and_parameter() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("one workload replaced/1000/new");
        fs::create_dir_all(&new).unwrap();
        fs::write(new.join("estimates.json"), ESTIMATES).unwrap();
        fs::create_dir_all(dir.path().join("report/new")).unwrap();
        let new = dir.path().join("decision/linear walk/10/new");
        fs::create_dir_all(&new).unwrap();
        fs::write(new.join("estimates.json"), ESTIMATES).unwrap();
        let benches = read(dir.path());
        let names: Vec<_> = benches.iter().map(|bench| &*bench.name).collect();
        assert_eq!(
            names,
            ["decision/linear walk/10", "one workload replaced/1000"]
        );
        assert!((benches[0].median_ns - 12.5).abs() < 1e-9);
    }

    #[test]
    fn without_results_there_is_nothing() {
        assert!(read(Path::new("/nonexistent")).is_empty());
        assert_eq!(parse("x".into(), "{}"), None);
    }
}
