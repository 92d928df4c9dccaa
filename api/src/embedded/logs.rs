//! The server's own log: bounded in size, and its end quoted where the server fails.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// One file per start and per [`FILE_MB_MAX`]; by name means by age.
pub(super) const FILE_NAME: &str = "postgresql-%Y%m%dT%H%M%S.log";
/// The size at which the server begins the next file, in MiB.
pub(super) const FILE_MB_MAX: u64 = 10;
/// Older files are removed.
const FILES_MAX: usize = 5;
/// What the server says before its log is open.
const EARLY: &str = "start.log";
const TAIL_LINES_MAX: usize = 12;
const TAIL_BYTES_MAX: u64 = 4096;

/// A file for the server's standard error, begun anew.
pub(super) fn open_early(cluster: &Path) -> std::io::Result<File> {
    let path = cluster.join(EARLY);
    let _ = fs::remove_file(&path);
    File::create_new(path) // Follows no link that the cluster's owner might have left.
}

/// The last lines of the server that was started last: from its log, or if it did not get as far
/// as opening one, the early ones.
pub(super) fn tail(cluster: &Path) -> String {
    let early = cluster.join(EARLY);
    let written = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let log = files(cluster).pop().filter(|log| written(log) >= written(&early));
    last_lines(&end_of(log.as_deref().unwrap_or(&early)))
}

/// The last lines of a longer text, empty ones left out.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES_MAX)..].join("\n")
}

/// Removes the oldest log files beyond the number that is kept.
pub(super) fn prune(cluster: &Path) {
    let files = files(cluster);
    for path in &files[..files.len().saturating_sub(FILES_MAX)] {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove an old PostgreSQL log");
        }
    }
}

/// The server's log files, oldest first.
fn files(cluster: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cluster.join("log")).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|p| is_log(p)).collect();
    paths.sort();
    paths
}

fn is_log(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("postgresql-") && path.extension().is_some_and(|kind| kind == "log")
}

fn end_of(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let length = file.metadata().map_or(0, |meta| meta.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)));
        let _ = file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    #[test]
    fn the_newest_logs_are_kept_and_nothing_else_is_touched() {
        let scratch = Scratch::new();
        let log = scratch.path().join("log");
        fs::create_dir(&log).unwrap();
        fs::write(log.join("notes.txt"), "mine").unwrap();
        for day in 1..=8 {
            fs::write(log.join(format!("postgresql-2026010{day}T000000.log")), "x\n").unwrap();
        }
        fs::write(log.join("postgresql-20260108T000000.log"), "first\n\nlast\n").unwrap();

        prune(scratch.path());

        assert_eq!(files(scratch.path()).len(), FILES_MAX);
        assert!(log.join("notes.txt").exists());
        assert_eq!(tail(scratch.path()), "first\nlast");
    }

    #[test]
    fn the_end_of_a_log_is_that_of_the_last_start() {
        let scratch = Scratch::new();
        let log = scratch.path().join("log/postgresql-20260101T000000.log");
        fs::create_dir(scratch.path().join("log")).unwrap();
        fs::write(&log, "the start before\n").unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        File::options().write(true).open(&log).unwrap().set_modified(long_ago).unwrap();
        fs::write(scratch.path().join(EARLY), "FATAL:  nonsense\n").unwrap();
        assert_eq!(tail(scratch.path()), "FATAL:  nonsense");

        fs::write(&log, "later\n").unwrap();
        assert_eq!(tail(scratch.path()), "later");
    }
}
