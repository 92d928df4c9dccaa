//! Which files there are, and what their manifests say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One file of the repository.
pub(super) struct Source {
    /// From the repository's root.
    pub(super) path: String,
    pub(super) text: String,
}

impl Source {
    /// Nothing but tests and what serves them alone.
    pub(super) fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(super) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// Everything that git tracks or would track; without git, everything but builds and dot files.
pub(super) fn files() -> Vec<String> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(arguments).current_dir(root()).output();
    let mut paths: Vec<String> = match listed {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect()
        }
        Ok(_) | Err(_) => walk(&root(), ""),
    };
    // Removed here, and not yet from the index.
    paths.retain(|path| root().join(path).is_file());
    assert!(paths.len() > 50, "the repository has more files than {}", paths.len());
    paths
}

fn walk(dir: &Path, prefix: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if name.starts_with('.') || path == "target" {
        } else if entry.path().is_dir() {
            paths.extend(walk(&entry.path(), &format!("{path}/")));
        } else {
            paths.push(path);
        }
    }
    paths
}

pub(super) fn sources(extensions: &[&str]) -> Vec<Source> {
    let wanted = |path: &String| {
        let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| extensions.contains(&extension))
    };
    let read = |path: String| Source { text: read(&path), path };
    files().into_iter().filter(wanted).map(read).collect()
}

/// A crate's own sources, without those that are tests throughout.
pub(super) fn crate_sources(name: &str) -> Vec<Source> {
    let home = format!("{name}/src/");
    let own = |source: &Source| source.path.starts_with(&home) && !source.is_test();
    sources(&["rs"]).into_iter().filter(own).collect()
}

/// The names in all sections of dependencies of a crate's manifest.
pub(super) fn dependencies(name: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in read(&format!("{name}/Cargo.toml")).lines() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if inside && let Some((name, _)) = line.split_once(['.', '=', ' ']) {
            names.push(name.trim().to_owned());
        }
    }
    names
}

pub(super) fn section(manifest: &str, head: &str) -> String {
    let body = manifest.lines().skip_while(|line| *line != head).skip(1);
    body.take_while(|line| !line.starts_with('[')).collect::<Vec<_>>().join("\n")
}
