//! Generates the messages of the control plane from their schemas, without protoc.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Schemas, below the crate.
const SCHEMAS: &str = "src/proto/schema";
/// Generated modules, below the crate.
const GENERATED: &str = "src/proto/generated";

/// First lines of a generated module. Lints ask for what a generator cannot give.
const HEADER: &str = include_str!("generated_header.txt");

/// Writes the generated modules.
///
/// # Errors
/// A text for people: what failed.
pub fn write() -> Result<(), String> {
    let folder = root().join(GENERATED);
    for (name, text) in generate()? {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Compiles all schemas; file names of the modules with their texts.
fn generate() -> Result<BTreeMap<String, String>, String> {
    let schemas = root().join(SCHEMAS);
    let mut files: Vec<PathBuf> = fs::read_dir(&schemas)
        .map_err(|e| format!("{}: {e}", schemas.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    files.sort();
    let descriptors = protox::compile(&files, [&schemas]).map_err(|e| format!("{e:?}"))?;
    let out = std::env::temp_dir().join(format!("corelane-proto-{}", std::process::id()));
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let mut config = prost_build::Config::new();
    // The one field of bytes that may be large shares the received frame.
    config.bytes([".envoy.service.discovery.v3.Any.value"]);
    let compiled = tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(&out)
        .server_mod_attribute(".", "#[cfg(test)]")
        .compile_fds_with_config(descriptors, config)
        .map_err(|e| e.to_string())
        .and_then(|()| collect(&out));
    let _ = fs::remove_dir_all(&out);
    compiled
}

/// `istio.workload.rs` becomes the module `istio_workload.rs` with our header.
fn collect(out: &Path) -> Result<BTreeMap<String, String>, String> {
    let mut modules = BTreeMap::new();
    let entries = fs::read_dir(out).map_err(|e| format!("{}: {e}", out.display()))?;
    for entry in entries {
        let path = entry.map_err(|e| e.to_string())?.path();
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let stem = stem.ok_or("a generated file without a name")?;
        // Long packages are known by their last telling part.
        let name = match stem {
            "envoy.service.discovery.v3" => "discovery".to_owned(),
            "istio.v1.auth" => "istio_ca".to_owned(),
            other => other.replace('.', "_"),
        };
        modules.insert(format!("{name}.rs"), format!("{HEADER}{text}"));
    }
    Ok(modules)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_modules_are_those_of_the_schemas() {
        let folder = root().join(GENERATED);
        let fresh = generate().unwrap();
        let mut kept = BTreeMap::new();
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            kept.insert(name, fs::read_to_string(&path).unwrap());
        }
        let names: Vec<_> = fresh.keys().collect();
        assert_eq!(kept.keys().collect::<Vec<_>>(), names);
        for (name, text) in fresh {
            assert!(
                kept[&name] == text,
                "{name} is old: run `cargo xtask proto`"
            );
        }
    }
}
