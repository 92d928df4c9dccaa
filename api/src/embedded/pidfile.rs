//! `postmaster.pid`: which process runs a cluster, in which state, and whether that is still true.
//!
//! Its lines are documented in PostgreSQL's `miscadmin.h`: process id, data directory, start time,
//! port, socket directory, listen address, shared memory key, state.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{settings, socket};

const NAME: &str = "postmaster.pid";

/// What a server wrote about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: Pid,
    /// None until it listens.
    pub(super) socket_dir: Option<PathBuf>,
    state: String,
}

/// Who has a process id now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody.
    Nobody,
    /// The server of the cluster that was asked about.
    Server,
    /// Another process, as ids are reused, or one that has ended and nobody has waited for.
    Other,
    /// A PostgreSQL, and it cannot be seen of which cluster.
    Unknown,
}

/// The file of a cluster; none where there is none, or one that is not (yet) whole.
pub(super) fn read(cluster: &Path) -> Option<PidFile> {
    parse(&fs::read_to_string(cluster.join(NAME)).ok()?)
}

/// The file of a cluster, if the server that wrote it runs.
pub(super) fn running(cluster: &Path) -> Option<PidFile> {
    read(cluster).filter(|file| holder(file.pid, cluster) == Holder::Server)
}

impl PidFile {
    /// It takes connections.
    pub(super) fn is_ready(&self) -> bool {
        self.state == "ready"
    }

    /// It is on its way out.
    pub(super) fn is_stopping(&self) -> bool {
        self.state == "stopping"
    }

    /// The directory of its socket, if the socket is there.
    pub(super) fn reachable_at(&self) -> Option<&Path> {
        self.socket_dir.as_deref().filter(|dir| socket::path_in(dir).exists())
    }
}

fn parse(text: &str) -> Option<PidFile> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    // A negative one is a single-user session, which nobody can connect to.
    let pid = lines.first()?.parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw)?;
    let line = |number: usize| lines.get(number - 1).copied().unwrap_or_default();
    let socket_dir = Some(line(5)).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    Some(PidFile { pid, socket_dir, state: line(8).to_owned() })
}

/// Whether `pid` is the server of `cluster`. A server works in its data directory, which tells it
/// from the server of another cluster. In a container not even root may see that of another
/// account's process; its arguments are open to all.
pub(super) fn holder(pid: Pid, cluster: &Path) -> Holder {
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return Holder::Nobody;
    }
    let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    if let Ok(stat) = fs::read_to_string(process.join("stat")) {
        // The state follows the name, which is in brackets and may hold any character.
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
        if matches!(state, Some('Z' | 'X')) {
            return Holder::Other;
        }
    }
    let arguments = arguments_of(pid);
    if !is_postgres(&arguments) {
        return Holder::Other;
    }
    match fs::read_link(process.join("cwd")) {
        Ok(dir) if Some(&dir) == cluster.canonicalize().ok().as_ref() => Holder::Server,
        Ok(_) => Holder::Other,
        Err(_) if arguments.contains(&format!(" -D {} -c ", cluster.display())) => Holder::Server,
        Err(_) => Holder::Unknown,
    }
}

/// The command line of a process, or the title that it has given itself.
fn arguments_of(pid: Pid) -> String {
    let pid = pid.as_raw_nonzero().to_string();
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_else(|_| {
        // No /proc: macOS, the BSDs.
        let asked = std::process::Command::new("ps").args(["-p", &pid, "-o", "args="]).output();
        asked.map(|output| output.stdout).unwrap_or_default()
    });
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn is_postgres(arguments: &str) -> bool {
    let program = arguments.split([' ', ':']).next().unwrap_or_default();
    program.rsplit('/').next() == Some("postgres")
}

/// Clears away what a dead server has left: the caller has made sure that none runs.
///
/// PostgreSQL sees by itself that the process in its file is gone, but believes in any process
/// that has the id now, and would refuse to start for as long as that one lives.
pub(super) fn clear_stale(cluster: &Path, socket_dir: &Path) {
    let Some(file) = read(cluster) else { return };
    match holder(file.pid, cluster) {
        Holder::Server | Holder::Nobody | Holder::Unknown => {}
        Holder::Other => {
            let pid = file.pid.as_raw_nonzero();
            tracing::warn!(pid, "postmaster.pid names a process that is not the server");
            let _ = fs::remove_file(cluster.join(NAME));
            let _ = fs::remove_file(socket_dir.join(format!(".s.PGSQL.{}.lock", socket::PORT)));
        }
    }
}

/// Tells the processes that a killed server has left to quit: until the last has gone, its shared
/// memory is in use and no new one can start. The idle ones go by themselves, one that is busy
/// with a long statement does not. They are found by their title, where there is a `/proc`.
pub(super) fn end_orphans(cluster: &Path) {
    let title = format!("postgres: {}: ", settings::cluster_name(cluster));
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        if arguments_of(pid).starts_with(&title) {
            tracing::debug!(pid = pid.as_raw_nonzero(), "ending an orphan of PostgreSQL");
            let _ = kill_process(pid, Signal::QUIT);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    #[test]
    fn the_file_is_read_whole_or_while_it_is_being_written() {
        let whole = "77\n/data/pg\n1700000000\n5432\n/tmp/s\n\n  1234  5\nready   \n";
        let file = parse(whole).unwrap();
        assert_eq!(file.pid, Pid::from_raw(77).unwrap());
        assert_eq!(file.socket_dir.as_deref(), Some(Path::new("/tmp/s")));
        assert!(file.is_ready() && !file.is_stopping());

        let begun = parse("77\n/data/pg\n").unwrap();
        assert_eq!((begun.socket_dir.clone(), begun.is_ready()), (None, false));
        assert_eq!(parse(""), None);
        assert_eq!(parse("-77\n/data/pg\n"), None, "a single-user session");
    }

    #[test]
    fn a_reused_process_id_is_not_taken_for_the_server_and_its_file_is_cleared() {
        let scratch = Scratch::new();
        let us = rustix::process::getpid();
        let text = format!("{}\n{}\n", us.as_raw_nonzero(), scratch.path().display());
        fs::write(scratch.path().join(NAME), text).unwrap();

        assert_eq!(holder(us, scratch.path()), Holder::Other);
        assert_eq!(running(scratch.path()), None);
        clear_stale(scratch.path(), scratch.path());
        assert!(!scratch.path().join(NAME).exists());
    }
}
