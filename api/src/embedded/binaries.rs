//! Finding the PostgreSQL server's own programs: `initdb` and `postgres`, nothing else is needed.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::account::Account;
use super::error::EmbeddedError;

/// The oldest major version that Rollcall's schema runs on.
const MAJOR_MIN: u32 = 15;

/// Where packages put the programs: a directory, the beginning of the names in it that hold one
/// version each, and the way from there. The newest version comes first.
const VERSIONED: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),         // Debian, Ubuntu
    ("/usr", "pgsql-", "bin"),                  // RPMs of the PostgreSQL project
    ("/opt/homebrew/opt", "postgresql", "bin"), // Homebrew on Apple silicon
    ("/usr/local/opt", "postgresql", "bin"),    // Homebrew on Intel
    ("/usr/lib", "postgresql", "bin"),          // SUSE
    ("/usr/libexec", "postgresql", ""),         // Alpine
];
const FIXED: [&str; 2] = ["/usr/bin", "/usr/local/pgsql/bin"]; // Fedora, Arch; built from source

/// One installed PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    bin: PathBuf,
    pub(super) major: u32,
}

impl Binaries {
    /// The server.
    pub(super) fn postgres(&self) -> PathBuf {
        self.bin.join("postgres")
    }

    /// The program that makes clusters.
    pub(super) fn initdb(&self) -> PathBuf {
        self.bin.join("initdb")
    }
}

/// The server that `cluster` needs (its directory and major version), or for a new one the first
/// that is new enough.
pub(super) async fn find(
    account: &Account,
    cluster: Option<(&Path, u32)>,
) -> Result<Binaries, EmbeddedError> {
    find_in(&directories().await, account, cluster).await
}

async fn find_in(
    directories: &[PathBuf],
    account: &Account,
    cluster: Option<(&Path, u32)>,
) -> Result<Binaries, EmbeddedError> {
    let mut too_old = None;
    let mut found_any = false;
    for dir in directories {
        let Some(major) = version_in(dir, account).await else { continue };
        found_any = true;
        match cluster {
            Some((_, needed)) if needed != major => {}
            None if major < MAJOR_MIN => too_old = too_old.max(Some(major)),
            Some(_) | None => return Ok(Binaries { bin: dir.clone(), major }),
        }
    }
    Err(match (cluster, too_old) {
        (Some((cluster, major)), _) if found_any => {
            EmbeddedError::OtherMajor { cluster: cluster.to_owned(), major }
        }
        (None, Some(found)) => EmbeddedError::TooOld { found, needed: MAJOR_MIN },
        (Some(_) | None, _) => EmbeddedError::NotInstalled,
    })
}

/// Every directory that may hold the programs, the person's own choice first.
async fn directories() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = env::split_paths(&path).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await {
        all.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    for (parent, prefix, below) in VERSIONED {
        all.extend(versions_in(Path::new(parent), prefix).into_iter().map(|dir| dir.join(below)));
    }
    all.extend(FIXED.map(PathBuf::from));
    let mut seen = HashSet::new();
    all.into_iter()
        .filter(|dir| dir.is_absolute() && dir.join("initdb").is_file())
        // Links into the real place are common: the same server once.
        .filter_map(|dir| dir.join("postgres").canonicalize().ok()?.parent().map(Path::to_owned))
        .filter(|dir| dir.join("initdb").is_file() && seen.insert(dir.clone()))
        .collect()
}

/// The directories in `parent` named `prefix` and a version, newest first. A Homebrew formula
/// without a version (`postgresql`) is an alias of some other one and comes last.
fn versions_in(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let rest = name.to_str()?.strip_prefix(prefix)?.trim_start_matches(['@', '-']);
            let version = rest.parse().ok().or_else(|| rest.is_empty().then_some(0))?;
            Some((version, entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// The major version in `dir`, if there is a server which `account` can run.
async fn version_in(dir: &Path, account: &Account) -> Option<u32> {
    if !dir.join("initdb").is_file() {
        return None;
    }
    let output = account.command(&dir.join("postgres")).arg("--version").output().await.ok()?;
    output.status.success().then(|| major_of(&String::from_utf8_lossy(&output.stdout)))?
}

/// 15 of `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`, 18 of `... 18beta1`.
fn major_of(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_kind_of_release() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_of("postgres (PostgreSQL) 17\n"), Some(17));
        assert_eq!(major_of("something else 9"), None);
    }

    #[test]
    fn the_newest_version_comes_first_by_number_not_by_name() {
        let scratch = Scratch::new();
        for name in ["postgresql@9", "postgresql@16", "postgresql", "postgresql-client", "x"] {
            fs::create_dir(scratch.path().join(name)).unwrap();
        }
        let names: Vec<_> = versions_in(scratch.path(), "postgresql")
            .iter()
            .map(|dir| dir.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["postgresql@16", "postgresql@9", "postgresql"]);
    }

    #[tokio::test]
    async fn a_server_too_old_is_passed_over_and_named_where_it_is_the_only_one() {
        let scratch = Scratch::new();
        let account = Account::choose(None).unwrap();
        let (old, new) = (fake_server(&scratch, 14), fake_server(&scratch, 16));
        let both = [old.clone(), new.clone()];

        let found = find_in(&both, &account, None).await.unwrap();
        assert_eq!(found, Binaries { bin: new, major: 16 });

        let refused = find_in(&[old], &account, None).await.unwrap_err().to_string();
        assert_eq!(refused, "PostgreSQL 14 is too old: Rollcall needs 15 or newer");
    }

    #[tokio::test]
    async fn an_existing_cluster_gets_its_own_major_version_or_a_clear_refusal() {
        let scratch = Scratch::new();
        let account = Account::choose(None).unwrap();
        let both = [fake_server(&scratch, 17), fake_server(&scratch, 15)];
        let cluster = Path::new("/data/pg");

        let found = find_in(&both, &account, Some((cluster, 15))).await.unwrap();
        assert_eq!(found.major, 15);

        let refused = find_in(&both, &account, Some((cluster, 16))).await.unwrap_err();
        assert!(refused.to_string().contains("apt-get install postgresql-16"), "{refused}");
    }

    #[tokio::test]
    async fn without_any_server_one_line_says_what_to_install() {
        let account = Account::choose(None).unwrap();
        let refused = find_in(&[], &account, None).await.unwrap_err().to_string();
        assert!(refused.contains("apt-get install postgresql"), "{refused}");
        assert!(!refused.contains('\n'), "{refused}");
    }

    /// A directory with an `initdb`, and a `postgres` that says it is of that version.
    fn fake_server(scratch: &Scratch, major: u32) -> PathBuf {
        let dir = scratch.path().join(major.to_string());
        fs::create_dir(&dir).unwrap();
        // Written by another process: while we had it open for writing, a child that another test
        // forks would have it, too, and the kernel refuses to run such a file.
        let script = format!(
            "cd '{}' && : > initdb && chmod 755 initdb && cp initdb postgres && \
             printf '#!/bin/sh\necho \"postgres (PostgreSQL) {major}.3\"\n' > postgres",
            dir.display()
        );
        let made = std::process::Command::new("sh").arg("-c").arg(script).status().unwrap();
        assert!(made.success());
        dir
    }
}
