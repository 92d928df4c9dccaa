//! What can go wrong with the embedded database, worded for the person who started it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the embedded database could not be found, made, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No server binaries anywhere. One line, for the terminal.
    #[error(
        "no PostgreSQL server found: install one (Debian/Ubuntu: `apt-get install postgresql`, \
         Fedora/RHEL: `dnf install postgresql-server`, macOS: `brew install postgresql`) \
         or pass --database-url"
    )]
    NotInstalled,
    /// Server binaries, but none that is new enough.
    #[error("PostgreSQL {found} is too old: Rollcall needs {needed} or newer")]
    TooOld {
        /// The newest major version found.
        found: u32,
        /// The oldest major version that will do.
        needed: u32,
    },
    /// The cluster was made by a major version whose binaries are not here.
    #[error(
        "{cluster} was made by PostgreSQL {major}, which is not installed here: install it \
         (Debian: `apt-get install postgresql-{major}`) or move the data with pg_upgrade"
    )]
    OtherMajor {
        /// The cluster's directory.
        cluster: PathBuf,
        /// The major version that it needs.
        major: u32,
    },
    /// Another process holds the lock.
    #[error("another rollcall serve uses this data dir: {dir} (process {holder})")]
    InUse {
        /// The directory that is locked.
        dir: PathBuf,
        /// The process id that the holder wrote down, or `?`.
        holder: String,
    },
    /// Started by root, and there is nobody to step down to.
    #[error("started by root, and there is no account `postgres` or `nobody` to run PostgreSQL as")]
    NoAccount,
    /// Something that is not a cluster stands where the cluster belongs.
    #[error(
        "{0} is neither empty nor a PostgreSQL cluster: move it away or choose another data dir"
    )]
    NotACluster(PathBuf),
    /// The cluster that this data dir remembers does not exist any more.
    #[error("the database was kept in {home}, which is gone: restore it, or remove {note}")]
    Gone {
        /// Where the cluster was.
        home: PathBuf,
        /// The file that says so.
        note: PathBuf,
    },
    /// No directory for the Unix socket is both private and short.
    #[error("no private directory for the Unix socket could be made, not even {0}")]
    NoSocketDir(PathBuf),
    /// Making the cluster failed.
    #[error("{step} failed ({status}): {output}")]
    Create {
        /// The program that failed.
        step: &'static str,
        /// Its exit status.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// The server ended before it was ready.
    #[error("PostgreSQL did not start ({how}): {log}")]
    Died {
        /// Its exit status.
        how: String,
        /// The end of its log.
        log: String,
    },
    /// The server lives, but did not become ready in time.
    #[error("PostgreSQL was not ready within {} s: {log}", .limit.as_secs())]
    NotReady {
        /// The limit that passed.
        limit: Duration,
        /// The end of its log.
        log: String,
    },
    /// The server lives on after every way of stopping it.
    #[error("PostgreSQL (process {0}) does not stop")]
    WontStop(i32),
    /// The operating system refused something.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
}

/// Says what was tried, and on which path, where the operating system refuses.
pub(super) trait Context<T> {
    fn or_say(self, what: &'static str, path: &Path) -> Result<T, EmbeddedError>;
}

impl<T> Context<T> for io::Result<T> {
    fn or_say(self, what: &'static str, path: &Path) -> Result<T, EmbeddedError> {
        self.map_err(|source| EmbeddedError::Io { what, path: path.to_owned(), source })
    }
}
