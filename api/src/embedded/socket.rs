//! The directory of the Unix socket, and URLs that lead there.
//!
//! The server trusts whoever reaches its socket, so the directory is the lock on the door: it
//! belongs to the account that runs the server, mode 0700. Nobody else passes but root, who needs
//! to, having stepped down. A password would add nothing: whoever can enter can also read the
//! cluster's files.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::account::{Account, PRIVATE_MODE};
use super::error::EmbeddedError;
use super::home;

/// Only a part of the socket's file name: nothing listens on TCP.
pub(super) const PORT: u16 = 5432;
/// The database, and its owner, a superuser of this private cluster.
pub(super) const DATABASE: &str = "rollcall";
/// `sun_path` holds 104 bytes on macOS, 108 on Linux, with a NUL at the end.
const SOCKET_PATH_BYTES_MAX: usize = 103;
/// Not `TMPDIR`, which differs between a service and a shell, nor `XDG_RUNTIME_DIR`, which
/// vanishes when its user logs out.
const TEMPORARY: &str = "/tmp";
/// How many names are tried there, in case somebody else has taken the first.
const TEMPORARY_NAMES_MAX: u32 = 4;

/// The socket in `dir`.
pub(super) fn path_in(dir: &Path) -> PathBuf {
    dir.join(format!(".s.PGSQL.{PORT}"))
}

/// The socket directory of a home: the one there is, or the first that can be made.
pub(super) fn choose(home: &Path, account: &Account) -> Result<PathBuf, EmbeddedError> {
    let mut last = PathBuf::new();
    for dir in candidates(home, account.uid) {
        if ensure(&dir, account).is_ok() {
            return Ok(dir);
        }
        last = dir;
    }
    Err(EmbeddedError::NoSocketDir(last))
}

/// The socket directory that a start has made before, of a home owned by `uid`.
pub(super) fn existing(home: &Path, uid: u32) -> Option<PathBuf> {
    candidates(home, uid).into_iter().find(|dir| is_private(dir, uid))
}

/// Makes `dir` unless it is there and private already. What is there otherwise, a directory of
/// somebody else or a symbolic link, is refused.
pub(super) fn ensure(dir: &Path, account: &Account) -> io::Result<()> {
    if is_private(dir, account.uid) {
        return Ok(());
    }
    account.make_private_dir(dir)?;
    // Some file systems (shared folders of virtual machines) hold no sockets.
    let trial = dir.join(".trial");
    let bound = UnixListener::bind(&trial).map(drop);
    let _ = fs::remove_file(&trial);
    bound.inspect_err(|_| {
        let _ = fs::remove_dir(dir);
    })
}

/// Where the socket may be: beside the cluster if that path is short enough, else in `/tmp`.
fn candidates(home: &Path, uid: u32) -> Vec<PathBuf> {
    let beside = home.join("run");
    let fits = path_in(&beside).as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
    let printable = home.to_str().is_some();
    let hash = home::hash(home);
    let temporary = (1..=TEMPORARY_NAMES_MAX)
        .map(|n| Path::new(TEMPORARY).join(format!("rollcall-{uid}-{hash}-{n}")));
    (fits && printable).then_some(beside).into_iter().chain(temporary).collect()
}

fn is_private(dir: &Path, uid: u32) -> bool {
    fs::symlink_metadata(dir)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == uid && meta.mode() & 0o777 == PRIVATE_MODE)
}

/// The URL of the database behind the socket in `dir`, for `user`, as `libpq` and sqlx read it.
/// The port is spelt out, or `PGPORT` in the environment would change it.
pub(super) fn url(dir: &Path, user: &str) -> String {
    let (user, host) = (percent_encode(user), percent_encode(&dir.to_string_lossy()));
    format!("postgres://{user}@{host}:{PORT}/{DATABASE}")
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::tests::Scratch;
    use super::*;

    #[test]
    fn a_url_names_the_socket_directory_percent_encoded() {
        assert_eq!(
            url(Path::new("/tmp/a b"), DATABASE),
            "postgres://rollcall@%2Ftmp%2Fa%20b:5432/rollcall"
        );
    }

    #[test]
    fn a_long_home_has_its_socket_on_a_short_path() {
        let home = PathBuf::from(format!("/home/{}", "long/".repeat(30)));
        for dir in candidates(&home, u32::MAX) {
            assert!(dir.starts_with(TEMPORARY), "{}", dir.display());
            assert!(path_in(&dir).as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        }
        assert_eq!(candidates(Path::new("/srv/x"), 1)[0], Path::new("/srv/x/run"));
    }

    #[test]
    fn a_directory_that_is_open_or_a_link_is_refused_and_one_of_ours_is_taken_again() {
        let scratch = Scratch::new();
        let account = Account::choose(None).unwrap();
        let (open, link) = (scratch.path().join("open"), scratch.path().join("link"));
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        symlink(&open, &link).unwrap();
        assert!(ensure(&open, &account).is_err());
        assert!(ensure(&link, &account).is_err());

        let ours = scratch.path().join("ours");
        ensure(&ours, &account).unwrap();
        ensure(&ours, &account).unwrap();
        assert!(is_private(&ours, account.uid));
    }
}
