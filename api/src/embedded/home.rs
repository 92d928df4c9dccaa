//! Where the cluster lives, how it is found again, and the lock that gives it one owner.
//!
//! A *home* holds the cluster (`pg/`), the lock, and where its path is short the socket (`run/`).
//! It is the data dir itself, or where root's stand-in cannot reach that,
//! `/var/lib/rollcall/<hash of the data dir>`, noted in the data dir so that moving it loses
//! nothing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::account::Account;
use super::binaries::Binaries;
use super::error::{Context, EmbeddedError};

/// For data dirs that the unprivileged account cannot reach.
pub(super) const FALLBACK_ROOT: &str = "/var/lib/rollcall";
/// The file in the data dir that says where its cluster went.
const NOTE: &str = "pg.location";
/// Others may pass through (to reach the cluster as another account) but not look around.
const DIR_MODE: u32 = 0o711;
const LOCK_MODE: u32 = 0o600;
/// A process id is shorter; the file could hold anything.
const HOLDER_BYTES_MAX: u64 = 32;

/// A directory that holds, or will hold, a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home(PathBuf);

/// Held by the one process that owns the cluster. The kernel releases it however that process ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave it to a child that another thread has just forked, for the
        // moment until that one runs its program.
        let _ = self.0.unlock();
    }
}

/// Makes the data dir if need be, and gives its real path.
pub(super) fn prepare(data_dir: &Path) -> Result<PathBuf, EmbeddedError> {
    make_passable(data_dir).or_say("make the data dir", data_dir)?;
    data_dir.canonicalize().or_say("find the data dir", data_dir)
}

/// Makes `dir` and what is missing above it, each with [`DIR_MODE`] whatever the umask says. What
/// is there already keeps its mode.
fn make_passable(dir: &Path) -> io::Result<()> {
    if dir.is_dir() || dir.as_os_str().is_empty() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_passable(parent)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(DIR_MODE)),
        // Another process was quicker.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// The home of the cluster that `data_dir` already has, if it has one.
pub(super) fn find(data_dir: &Path, fallback: &Path) -> Result<Option<Home>, EmbeddedError> {
    let here = Home(data_dir.to_owned());
    if here.major()?.is_some() {
        return Ok(Some(here));
    }
    let note = data_dir.join(NOTE);
    let noted = match fs::read_to_string(&note) {
        Ok(text) => Some(Home(PathBuf::from(text.trim()))),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).or_say("read", &note),
    };
    if let Some(home) = noted.filter(|home| home.0.starts_with(fallback)) {
        // An empty database in its place would look like the loss of everything.
        return match home.major()? {
            Some(_) => Ok(Some(home)),
            None => Err(EmbeddedError::Gone { home: home.0, note }),
        };
    }
    let hashed = Home(fallback.join(hash(data_dir)));
    Ok(hashed.major()?.map(|_| hashed))
}

/// The home of a new cluster: the data dir, or the fallback where `account` cannot live there.
pub(super) async fn choose(
    data_dir: &Path,
    fallback: &Path,
    account: &Account,
    tools: &Binaries,
) -> Result<Home, EmbeddedError> {
    if account.can_live_in(data_dir, &tools.postgres()).await {
        return Ok(Home(data_dir.to_owned()));
    }
    let home = fallback.join(hash(data_dir));
    make_passable(&home).or_say("make", &home)?;
    tracing::warn!(
        data_dir = %data_dir.display(),
        home = %home.display(),
        "the unprivileged account cannot reach the data dir: the database is kept elsewhere"
    );
    Ok(Home(home))
}

impl Home {
    /// The directory itself.
    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    /// The cluster's directory, `PGDATA`.
    pub(super) fn cluster(&self) -> PathBuf {
        self.0.join("pg")
    }

    /// The major version that made the cluster; none where there is no finished cluster.
    pub(super) fn major(&self) -> Result<Option<u32>, EmbeddedError> {
        let path = self.cluster().join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(major) => Ok(Some(major)),
                Err(_) => Err(EmbeddedError::NotACluster(self.cluster())),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).or_say("read", &path),
        }
    }

    /// Takes the lock, or says who has it.
    pub(super) fn lock(&self) -> Result<Lock, EmbeddedError> {
        let path = self.0.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(LOCK_MODE);
        // Never through a link: root may run us in a directory of somebody else.
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let mut file = options.open(&path).or_say("open", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
                let holder = if holder.is_empty() { "?".to_owned() } else { holder };
                return Err(EmbeddedError::InUse { dir: self.0.clone(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(error).or_say("lock", &path),
        }
        // For the message above alone: the lock is the kernel's, not this text.
        file.set_len(0).or_say("write", &path)?;
        write!(file, "{}", std::process::id()).or_say("write", &path)?;
        Ok(Lock(file))
    }

    /// Notes this home in the data dir, where the two differ. Called once the cluster is there:
    /// a note without a cluster is an error, a cluster without a note is found by its hash.
    pub(super) fn note_in(&self, data_dir: &Path) -> Result<(), EmbeddedError> {
        let note = data_dir.join(NOTE);
        if self.0 == data_dir || note.exists() {
            return Ok(());
        }
        let text = format!("{}\n", self.0.display());
        let written = File::create_new(&note).and_then(|mut file| file.write_all(text.as_bytes()));
        written.or_say("write", &note)
    }
}

/// A short name for a directory, the same at every start.
pub(super) fn hash(dir: &Path) -> String {
    let digest = Sha256::digest(dir.as_os_str().as_bytes());
    let number = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{number:016x}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::binaries;
    use super::super::tests::Scratch;
    use super::*;

    fn make_cluster(home: &Home) {
        fs::create_dir_all(home.cluster()).unwrap();
        fs::write(home.cluster().join("PG_VERSION"), "15\n").unwrap();
    }

    #[test]
    fn a_cluster_elsewhere_is_found_by_its_hash_and_after_a_move_by_its_note() {
        let scratch = Scratch::new();
        let (data_dir, fallback) = (scratch.path().join("data"), scratch.path().join("var"));
        fs::create_dir(&data_dir).unwrap();
        assert_eq!(find(&data_dir, &fallback).unwrap(), None);

        let home = Home(fallback.join(hash(&data_dir)));
        make_cluster(&home);
        assert_eq!(find(&data_dir, &fallback).unwrap(), Some(home.clone()));

        home.note_in(&data_dir).unwrap();
        let moved = scratch.path().join("moved");
        fs::rename(&data_dir, &moved).unwrap();
        assert_eq!(find(&moved, &fallback).unwrap(), Some(home));
    }

    #[test]
    fn a_cluster_that_was_noted_and_is_gone_is_never_replaced_by_an_empty_one() {
        let scratch = Scratch::new();
        let (data_dir, fallback) = (scratch.path().to_owned(), scratch.path().join("var"));
        Home(fallback.join("gone")).note_in(&data_dir).unwrap();
        let refused = find(&data_dir, &fallback).unwrap_err();
        assert!(matches!(refused, EmbeddedError::Gone { .. }), "{refused}");
    }

    #[tokio::test]
    async fn a_data_dir_out_of_the_accounts_reach_has_its_home_elsewhere() {
        let scratch = Scratch::new();
        let account = Account::choose(None).unwrap();
        let (data_dir, fallback) = (scratch.path().join("data"), scratch.path().join("a/b"));
        let data_dir = prepare(&data_dir).unwrap();
        let Ok(tools) = binaries::find(&account, None).await else {
            return println!("skipped: no PostgreSQL server is installed here");
        };
        let near = choose(&data_dir, &fallback, &account, &tools).await.unwrap();
        assert_eq!(near.dir(), data_dir);
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: only root steps down");
        }
        fs::set_permissions(&data_dir, fs::Permissions::from_mode(0o700)).unwrap();
        let far = choose(&data_dir, &fallback, &account, &tools).await.unwrap();
        assert_eq!(far.dir(), fallback.join(hash(&data_dir)));
        assert!(account.can_live_in(far.dir(), &tools.postgres()).await);
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 0, "the trial is cleared away");
    }

    #[test]
    fn a_second_owner_is_refused_until_the_first_is_gone() {
        let scratch = Scratch::new();
        let home = Home(scratch.path().to_owned());
        let first = home.lock().unwrap();
        let refused = home.lock().unwrap_err().to_string();
        assert!(refused.starts_with("another rollcall serve uses this data dir"), "{refused}");
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        home.lock().unwrap();
    }
}
