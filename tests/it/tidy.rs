//! What our style asks for and no compiler holds: sizes, boundaries between crates, absences.
//!
//! Sources are read as text, with comments and literals blanked where only code counts. Every check
//! lists all places at once. What is held by other means is not repeated here: the format by
//! `cargo fmt`, the lints by clippy.

mod files;
mod scan;

use std::collections::{BTreeMap, BTreeSet};

use files::{Source, crate_sources, dependencies, files, read, section, sources};
use scan::{code, functions, line, numbered, untested};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;
/// Files whose size and width count.
const SIZED: [&str; 5] = ["rs", "sql", "js", "css", "html"];
/// Every crate and those of ours that it may depend upon.
const ARROWS: [(&str, &[&str]); 4] = [
    ("domain", &[]),
    ("projections", &["domain"]),
    ("api", &["domain", "projections"]),
    ("tests", &["domain", "projections", "api"]),
];
const SQL_CRATES: [&str; 3] = ["sqlx", "postgres_es", "tokio_postgres"];
const HTTP_CRATES: [&str; 7] =
    ["axum", "http", "hyper", "hyper_util", "reqwest", "tower", "tower_http"];
const TOP: [&str; 8] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "domain",
    "api",
    "projections",
    "migrations",
    "tests",
];

#[test]
fn no_file_is_longer_than_500_lines() {
    let of = |source: &Source| {
        let lines = source.text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", source.path))
    };
    nothing_found(sources(&SIZED).iter().filter_map(of));
}

#[test]
fn no_line_is_wider_than_100_columns() {
    let mut found = Vec::new();
    for source in sources(&SIZED) {
        for (number, line) in numbered(&source.text) {
            let columns = line.chars().count();
            if columns > LINE_COLUMNS_MAX {
                found.push(format!("{}:{number}: {columns} columns", source.path));
            }
        }
    }
    nothing_found(found);
}

/// Rust's: `append` is one SQL function by design, as it must be one round trip.
#[test]
fn no_function_is_longer_than_70_lines() {
    let mut found = Vec::new();
    for source in sources(&["rs"]) {
        for (name, first, last) in functions(&code(&source.text)) {
            let lines = last - first + 1;
            if lines > FUNCTION_LINES_MAX {
                found.push(format!("{}:{first}: fn {name}: {lines} lines", source.path));
            }
        }
    }
    nothing_found(found);
}

#[test]
fn crates_depend_inward_only() {
    let ours: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let mut found = Vec::new();
    for (name, allowed) in ARROWS {
        for dependency in dependencies(name) {
            if ours.contains(&dependency.as_str()) && !allowed.contains(&dependency.as_str()) {
                found.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    nothing_found(found);
}

#[test]
fn only_projections_and_the_tests_know_sql() {
    let mut found = foreign(&["domain", "api"], &SQL_CRATES);
    let homes = ["migrations/", "projections/", "tests/"];
    let strays = sources(&["sql"]).into_iter().map(|source| source.path);
    found.extend(strays.filter(|path| !homes.iter().any(|home| path.starts_with(home))));
    nothing_found(found);
}

#[test]
fn only_the_api_and_the_tests_know_http() {
    nothing_found(foreign(&["domain", "projections"], &HTTP_CRATES));
}

#[test]
fn the_domain_does_no_io_and_asks_for_neither_time_nor_randomness() {
    const FORBIDDEN: [&str; 14] = [
        "Utc::now",
        "Local::now",
        "SystemTime",
        "Instant::now",
        "Uuid::new_v1",
        "Uuid::new_v4",
        "Uuid::new_v6",
        "Uuid::new_v7",
        "Uuid::now",
        "std::fs",
        "std::net",
        "std::env",
        "tokio",
        "rand::",
    ];
    let mut found = Vec::new();
    for source in crate_sources("domain") {
        found.extend(places(&source, &untested(&source.text), &FORBIDDEN));
    }
    nothing_found(found);
}

#[test]
fn nothing_stands_at_the_top_but_the_agreed_layout() {
    let agreed =
        |name: &str| TOP.contains(&name) || name.starts_with('.') || name.starts_with("LICENSE");
    let first = |path: &String| path.split('/').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = files().iter().map(first).collect();
    nothing_found(names.into_iter().filter(|name| !agreed(name)));
}

#[test]
fn nothing_panics_outside_tests_without_a_written_reason() {
    const PANICS: [&str; 4] = [".unwrap()", ".expect(", "panic!", "unreachable!"];
    let mut found = Vec::new();
    for name in ["domain", "projections", "api"] {
        for source in crate_sources(name) {
            let places = places(&source, &untested(&source.text), &PANICS);
            found.extend(places.into_iter().filter(|place| !has_reason(&source, place)));
        }
    }
    nothing_found(found);
}

#[test]
fn every_crate_takes_the_workspace_lints_which_forbid_unsafe_code() {
    let mut found = Vec::new();
    if !section(&read("Cargo.toml"), "[workspace.lints.rust]").contains(r#"unsafe_code = "forbid""#)
    {
        found.push("Cargo.toml: [workspace.lints.rust] lacks unsafe_code = \"forbid\"".to_owned());
    }
    for (name, _) in ARROWS {
        let manifest = format!("{name}/Cargo.toml");
        if !section(&read(&manifest), "[lints]").contains("workspace = true") {
            found.push(format!("{manifest}: [lints] lacks workspace = true"));
        }
    }
    nothing_found(found);
}

#[test]
fn no_test_is_ignored_and_nothing_is_left_undone() {
    const UNDONE: [&str; 4] = ["#[ignore", "todo!", "unimplemented!", "dbg!"];
    let mut found = Vec::new();
    for source in sources(&["rs"]) {
        found.extend(places(&source, &code(&source.text), &UNDONE));
    }
    nothing_found(found);
}

/// A condition is awaited with a bound; time is moved, not spent. What awaits it, in the harness or
/// in a part's own `tests.rs`, may pause between two looks where the line says why.
#[test]
fn no_test_sleeps() {
    let mut found = Vec::new();
    for source in sources(&["rs"]) {
        let all_tests = source.is_test();
        if source.path.starts_with("tests/src/bin/") {
            continue;
        }
        let code = code(&source.text);
        let untested = untested(&source.text);
        for place in places(&source, &code, &["sleep("]) {
            let outside_tests = !all_tests && line(&untested, place.line).contains("sleep(");
            let harness =
                source.path.starts_with("tests/src/") || source.path.ends_with("/tests.rs");
            if !(outside_tests || harness && has_reason(&source, &place)) {
                found.push(place);
            }
        }
    }
    nothing_found(found);
}

#[test]
fn the_openapi_document_in_the_repository_is_the_one_that_is_served() {
    let served = api::routes::document().to_pretty_json().expect("the document is JSON");
    let stored = read("api/openapi.json");
    let refresh = "cargo run -q -- openapi > api/openapi.json";
    let differing = served.lines().zip(stored.lines()).position(|(one, other)| one != other);
    let line = differing.unwrap_or(served.lines().count().min(stored.lines().count())) + 1;
    assert!(
        served.trim_end() == stored.trim_end(),
        "api/openapi.json is stale from line {line} on; refresh it: {refresh}"
    );
}

/// The later one would take the place of the earlier, and nobody would hear of it.
#[test]
fn no_two_types_have_one_name_in_the_openapi_document() {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut found = Vec::new();
    for source in crate_sources("api") {
        let mut lines = numbered(&source.text);
        while let Some((number, line)) = lines.next() {
            if !(line.contains("derive(") && contains_word(line, "ToSchema")) {
                continue;
            }
            let mut renamed = None;
            for (_, line) in lines.by_ref() {
                let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
                let after = |word: &str| words.clone().skip_while(|w| *w != word).nth(1);
                if line.trim_start().starts_with("#[schema(as = ") {
                    renamed = words.clone().filter(|word| !word.is_empty()).nth(2);
                } else if let Some(name) = after("struct").or_else(|| after("enum"))
                    && !line.trim_start().starts_with("//")
                {
                    let name = renamed.unwrap_or(name).to_owned();
                    let place = format!("{}:{number}: {name}", source.path);
                    if let Some(earlier) = known.insert(name, place.clone()) {
                        found.push(format!("{place}, and {earlier}"));
                    }
                    break;
                }
            }
        }
    }
    assert!(known.len() > 100, "{} types", known.len());
    nothing_found(found);
}

// What is found, and how it is shown.

/// One place in one file.
#[derive(Debug)]
struct Place {
    path: String,
    line: usize,
    what: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

#[track_caller]
fn nothing_found<T: ToString>(found: impl IntoIterator<Item = T>) {
    let found: Vec<String> = found.into_iter().map(|place| place.to_string()).collect();
    assert!(found.is_empty(), "{} found:\n{}", found.len(), found.join("\n"));
}

/// Where one of `needles` stands as a word of its own.
fn places(source: &Source, code: &str, needles: &[&str]) -> Vec<Place> {
    let mut found = Vec::new();
    for (number, line) in numbered(code) {
        let met = needles.iter().filter(|needle| contains_word(line, needle));
        found.extend(met.map(|needle| Place {
            path: source.path.clone(),
            line: number,
            what: (*needle).to_owned(),
        }));
    }
    found
}

fn contains_word(line: &str, needle: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(needle).any(|(at, _)| {
        let begins = !needle.starts_with(in_word) || !line[..at].ends_with(in_word);
        let ends = !needle.ends_with(in_word) || !line[at + needle.len()..].starts_with(in_word);
        // `Uuid::now` stands for all that begins so.
        begins && (ends || needle.contains("::"))
    })
}

/// A comment, or a lint's `reason`, on the line itself or on the one before.
fn has_reason(source: &Source, place: &Place) -> bool {
    let gives_reason = |line: &str| line.contains("//") || line.contains("reason = \"");
    gives_reason(line(&source.text, place.line))
        || (place.line > 1 && gives_reason(line(&source.text, place.line - 1)))
}

/// Uses of other people's crates where they do not belong, in sources and manifests.
fn foreign(ours: &[&str], theirs: &[&str]) -> Vec<String> {
    let paths: Vec<String> = theirs.iter().map(|name| format!("{name}::")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let mut found = Vec::new();
    for name in ours {
        for source in crate_sources(name) {
            let used = places(&source, &code(&source.text), &paths);
            found.extend(used.iter().map(ToString::to_string));
        }
        let named = dependencies(name).into_iter().map(|dependency| dependency.replace('-', "_"));
        let named = named.filter(|dependency| theirs.contains(&dependency.as_str()));
        found.extend(named.map(|dependency| format!("{name}/Cargo.toml: {dependency}")));
    }
    found
}
