//! What `STYLE` asks for and no compiler holds: sizes, boundaries between crates, things left out.
//!
//! Sources are read as text, with comments and literals blanked where only code counts. Every check
//! lists all places at once. What is held by other means is not repeated here: the format by
//! `cargo fmt`, the lints by clippy.
#![allow(clippy::expect_used, reason = "a check that cannot read its sources must fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
const TOP: [&str; 8] =
    ["Cargo.toml", "Cargo.lock", "README.md", "domain", "api", "projections", "migrations", "tests"];

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
    let agreed = |name: &str| {
        TOP.contains(&name) || name.starts_with('.') || name.starts_with("LICENSE")
    };
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
    const UNDONE: [&str; 5] = ["#[ignore", "todo!", "unimplemented!", "dbg!", "#[allow(dead_code"];
    let mut found = Vec::new();
    for source in sources(&["rs"]) {
        found.extend(places(&source, &code(&source.text), &UNDONE));
    }
    nothing_found(found);
}

/// A condition is awaited with a bound; time is moved, not spent. The harness may pause between two
/// looks where the line says why.
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
            let harness = source.path.starts_with("tests/src/");
            if !outside_tests && !(harness && has_reason(&source, &place)) {
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

#[test]
fn the_scanner_tells_code_from_comments_literals_and_tests() {
    let text = "fn a() { /* fn b() { */ let c = '{'; let s = \"}\\\"{\"; } // {\n\
                fn d<'a>(x: [u8; 2], y: &'a str)\n{\n    r#\"} \" {\"#;\n}\n\
                #[cfg(test)]\nmod tests {\n    fn e() { x.unwrap() }\n}\nfn f() {}\n";
    let found = functions(&code(text));
    let found: Vec<_> = found.iter().map(|(name, a, b)| (name.as_str(), *a, *b)).collect();
    assert_eq!(found, [("a", 1, 1), ("d", 2, 5), ("e", 8, 8), ("f", 10, 10)]);
    let outside = untested(text);
    assert!(!outside.contains("unwrap") && outside.contains("fn f"), "{outside}");
    assert_eq!(outside.lines().count(), text.lines().count());
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

// Which files there are.

/// One file of the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Nothing but tests and what serves them alone.
    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// Everything that git tracks or would track; without git, everything but builds and dot files.
fn files() -> Vec<String> {
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

fn sources(extensions: &[&str]) -> Vec<Source> {
    let wanted = |path: &String| {
        let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| extensions.contains(&extension))
    };
    let read = |path: String| Source { text: read(&path), path };
    files().into_iter().filter(wanted).map(read).collect()
}

/// A crate's own sources, without those that are tests throughout.
fn crate_sources(name: &str) -> Vec<Source> {
    let home = format!("{name}/src/");
    let own = |source: &Source| source.path.starts_with(&home) && !source.is_test();
    sources(&["rs"]).into_iter().filter(own).collect()
}

/// The names in all sections of dependencies of a crate's manifest.
fn dependencies(name: &str) -> Vec<String> {
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

fn section(manifest: &str, head: &str) -> String {
    let body = manifest.lines().skip_while(|line| *line != head).skip(1);
    body.take_while(|line| !line.starts_with('[')).collect::<Vec<_>>().join("\n")
}

// What stands in them.

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn line(text: &str, number: usize) -> &str {
    text.lines().nth(number - 1).unwrap_or_default()
}

/// The text with comments and the insides of literals blanked; lines stay where they are.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let word_before = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = match next {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            'r' if !word_before => raw_string(rest),
            // `br"..."`, `cr#"..."#`; the letter itself is code.
            'b' | 'c' if !word_before && raw_string(&rest[1..]) > 0 => 1 + raw_string(&rest[1..]),
            '\'' => character(rest),
            _ => 0,
        };
        let taken = if skipped > 0 { skipped } else { next.len_utf8() };
        let (done, after) = rest.split_at(taken);
        if skipped > 0 {
            code.extend(done.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            code.push(next);
        }
        rest = after;
    }
    code
}

/// Bytes of the comment, with those inside it.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Bytes of the string that begins here.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of the raw string that begins here; none, if none does.
fn raw_string(text: &str) -> usize {
    let Some(after) = text.strip_prefix('r') else { return 0 };
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    let end = format!("\"{}", "#".repeat(hashes));
    let Some(inside) = after[hashes..].strip_prefix('"') else { return 0 };
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    2 + hashes + length
}

/// Bytes of the character literal that begins here; none, if it is a lifetime.
fn character(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    let Some((_, first)) = characters.next() else { return 0 };
    if first == '\\' {
        let escape = text.char_indices().skip(3).find(|(_, c)| *c == '\'');
        return escape.map_or(0, |(at, _)| at + 1);
    }
    characters.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1)
}

/// Name, first and last line of every function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let line_of = |at: usize| code[..at].bytes().filter(|byte| *byte == b'\n').count() + 1;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let begins_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if begins_word || name.is_empty() {
            continue;
        }
        if let Some(end) = item_end(&code[at..]).filter(|(_, braced)| *braced) {
            found.push((name, line_of(at), line_of(at + end.0)));
        }
    }
    found
}

/// Where the item ends that begins here, and whether it ends with a brace.
fn item_end(code: &str) -> Option<(usize, bool)> {
    let (mut brackets, mut braces) = (0_usize, 0_usize);
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.checked_sub(1)?,
            b'{' => braces += 1,
            b'}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 && brackets == 0 {
                    return Some((at, true));
                }
            }
            b';' if braces == 0 && brackets == 0 => return Some((at, false)),
            _ => {}
        }
    }
    None
}

/// The code without what is compiled for tests alone.
fn untested(text: &str) -> String {
    let mut code = code(text);
    let marker = "#[cfg(test)]";
    while let Some(at) = code.find(marker) {
        let item = at + marker.len();
        let end = item_end(&code[item..]).map_or(code.len(), |(end, _)| item + end + 1);
        let blank: String =
            code[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(at..end, &blank);
    }
    code
}
