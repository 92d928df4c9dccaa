//! Who runs PostgreSQL: it refuses to be run by root, so root steps down to an ordinary account.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::error::EmbeddedError;

/// Whom root steps down to: the first of them that exists.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];
const PASSWD: &str = "/etc/passwd";
/// Owner only. PostgreSQL insists on it for its data, and our `trust` rests on it for the socket.
pub(super) const PRIVATE_MODE: u32 = 0o700;

/// The account that owns the cluster and runs its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    gid: u32,
    /// We are root, and this is somebody else.
    steps_down: bool,
}

impl Account {
    /// The owner of `cluster` where there is one, so that a later start runs as the same account
    /// as the first; else one of [`ACCOUNTS`]. An ordinary user stays what they are.
    pub(super) fn choose(cluster: Option<&Path>) -> Result<Self, EmbeddedError> {
        let us = rustix::process::geteuid();
        if !us.is_root() {
            let gid = rustix::process::getegid().as_raw();
            return Ok(Self { uid: us.as_raw(), gid, steps_down: false });
        }
        let owner = cluster
            .and_then(|dir| fs::symlink_metadata(dir).ok())
            .map(|meta| (meta.uid(), meta.gid()))
            .filter(|(uid, _)| *uid != 0);
        let passwd = || {
            let text = fs::read_to_string(PASSWD).unwrap_or_default();
            ACCOUNTS.iter().find_map(|name| ids_of(name, &text))
        };
        let (uid, gid) = owner.or_else(passwd).ok_or(EmbeddedError::NoAccount)?;
        Ok(Self { uid, gid, steps_down: true })
    }

    /// `program`, to be run as this account, with nothing inherited that would redirect it.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Whatever directory we are in, this account may not be allowed there.
        command.current_dir("/").stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name); // PGDATA, PGPORT, PGOPTIONS ... of some other cluster.
            }
        }
        command.env("LC_ALL", "C"); // Messages that we and a search engine can read.
        if self.steps_down {
            // The standard library drops root's supplementary groups along with its uid.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes `dir`, which must not exist, private to this account.
    pub(super) fn make_private_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().mode(PRIVATE_MODE).create(dir)?;
        if self.steps_down {
            // Never through a symbolic link: the parent may belong to somebody else.
            lchown(dir, Some(self.uid), Some(self.gid)).inspect_err(|_| {
                let _ = fs::remove_dir(dir);
            })?;
        }
        Ok(())
    }

    /// Whether this account could keep a directory of its own in `dir`. The kernel is asked, by
    /// a process of the account that tries to enter one, as mode bits are not the whole truth.
    /// `program` is one that it is known to be able to run with `--version`.
    pub(super) async fn can_live_in(&self, dir: &Path, program: &Path) -> bool {
        if !self.steps_down {
            return true;
        }
        let trial = dir.join(format!(".trial-{:x}", super::unique()));
        let entered = match self.make_private_dir(&trial) {
            Ok(()) => self.command(program).arg("--version").current_dir(&trial).output().await,
            Err(refused) => Err(refused),
        };
        let _ = fs::remove_dir(&trial);
        entered.is_ok_and(|output| output.status.success())
    }
}

/// The uid and gid of `name` in the text of a passwd(5) file. Root's are no step down.
fn ids_of(name: &str, passwd: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [found, _, uid, gid, ..] = fields.as_slice() else { return None };
        // macOS writes nobody's ids as -2.
        let id = |text: &str| text.parse::<i64>().ok().map(|id| id as u32);
        (*found == name).then_some((id(uid)?, id(gid)?)).filter(|(uid, _)| *uid != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_from_passwd_by_its_whole_name() {
        let passwd = "root:x:0:0::/:/bin/sh\npostgres2:x:7:7::/:\n# note\npostgres:x:101:104::/:";
        assert_eq!(ids_of("postgres", passwd), Some((101, 104)));
        assert_eq!(ids_of("nobody", passwd), None);
        assert_eq!(ids_of("root", passwd), None, "root is no step down");
        assert_eq!(ids_of("nobody", "nobody:*:-2:-2::/:"), Some((u32::MAX - 1, u32::MAX - 1)));
    }
}
