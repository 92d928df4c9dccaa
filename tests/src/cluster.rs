//! One private PostgreSQL for a whole run of a test binary, and a database for each test.
//!
//! A guard process starts the server and reads from a pipe that we hold: when we are gone, however
//! that came about, the pipe ends, and the guard stops the server and removes its directory.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use projections::db::{Database, SCHEMA};
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::OnceCell;

use crate::clock;

/// Its superuser, as who every test connects.
const OWNER: &str = "rollcall";
/// Migrated once, then copied.
const TEMPLATE: &str = "template_rollcall";

/// Nothing here outlives the run, so nothing has to reach the disk.
const SETTINGS: &str = "-c fsync=off -c full_page_writes=off -c synchronous_commit=off \
    -c wal_level=minimal -c max_wal_senders=0 -c max_connections=500 -c shared_buffers=128MB \
    -c max_wal_size=4GB -c checkpoint_timeout=1h -c autovacuum_naptime=10s -c jit=off \
    -c listen_addresses= -c logging_collector=off -c timezone=UTC";

/// What the guard does. `$1`: the programs, `$2`: the directory, `$3`: the server's settings.
const GUARD: &str = r#"
cd "$2" || exit 1
{ "$1/initdb" -D "$2/data" -U rollcall -A trust -E UTF8 --locale=C --no-sync &&
  "$1/pg_ctl" -D "$2/data" -w -l "$2/log" -o "$3 -c unix_socket_directories=$2" start
} > "$2/start" 2>&1 < /dev/null && echo ready || cat "$2/start" "$2/log"
exec > /dev/null 2>&1
cat
"$1/pg_ctl" -D "$2/data" -m immediate -w stop < /dev/null
rm -rf "$2"
"#;

struct Server {
    socket_dir: PathBuf,
    /// The end of its standard input tells it that we are gone.
    _guard: Child,
}

/// A database of its own, made from the template.
#[derive(Debug, Clone)]
pub struct TestDatabase {
    /// Its name in the cluster.
    pub name: String,
    /// Its URL, as superuser.
    pub url: String,
}

/// A fresh database: migrated, with the test clock, without a batch.
pub async fn database() -> TestDatabase {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    template().await;
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut connection = maintenance().await;
    // Copying files is cheap where nothing is synced; else every page would go through the WAL.
    connection
        .execute(format!("create database {name} template {TEMPLATE} strategy file_copy").as_str())
        .await
        .unwrap();
    connection.close().await.unwrap();
    TestDatabase { url: url(&name), name }
}

/// An empty database: nothing migrated, no test clock.
pub async fn empty_database() -> TestDatabase {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let name = format!("empty_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut connection = maintenance().await;
    connection.execute(format!("create database {name}").as_str()).await.unwrap();
    connection.close().await.unwrap();
    TestDatabase { url: url(&name), name }
}

impl TestDatabase {
    /// Drops it, whoever is connected.
    pub async fn drop(self) {
        let mut connection = maintenance().await;
        let statement = format!("drop database if exists {} with (force)", self.name);
        connection.execute(statement.as_str()).await.unwrap();
        connection.close().await.unwrap();
    }
}

async fn template() {
    static MADE: OnceCell<()> = OnceCell::const_new();
    MADE.get_or_init(|| async {
        let mut connection = maintenance().await;
        connection.execute(format!("create database {TEMPLATE}").as_str()).await.unwrap();
        connection.close().await.unwrap();
        let database = Database::new(&url(TEMPLATE)).unwrap();
        database.migrate().await.unwrap();
        let mut owner = database.owner().await.unwrap();
        clock::install(&mut owner).await;
        owner.close().await.unwrap();
    })
    .await;
}

async fn maintenance() -> PgConnection {
    PgConnection::connect(&url("postgres")).await.unwrap()
}

/// The URL of a database of the run's cluster, which is started if need be.
pub fn url(database: &str) -> String {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(start);
    let host = server.socket_dir.to_str().unwrap().replace('/', "%2F");
    format!("postgres://{OWNER}@{host}/{database}")
}

fn start() -> Server {
    // Not `temp_dir`: the path of a Unix socket has at most some 100 bytes.
    let socket_dir = PathBuf::from(format!("/tmp/rollcall-tests-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&socket_dir);
    std::fs::DirBuilder::new().mode(0o700).create(&socket_dir).unwrap();
    let mut guard = Command::new("/bin/sh");
    guard.args(["-c", GUARD, "rollcall-tests-guard"]).arg(programs()).arg(&socket_dir);
    guard.arg(SETTINGS).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // A Ctrl-C in the terminal is ours; the guard goes after us.
    guard.process_group(0).env("LC_ALL", "C");
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = unprivileged();
        chown(&socket_dir, Some(uid), Some(gid)).unwrap();
        guard.uid(uid).gid(gid);
    }
    let mut child = guard.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    output.read_line(&mut first).unwrap();
    if first != "ready\n" {
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        panic!("PostgreSQL does not start: {first}{rest}");
    }
    Server { socket_dir, _guard: child }
}

/// PostgreSQL refuses to be run by root.
fn unprivileged() -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody")).expect("an account `postgres` or `nobody`")
}

/// Where `initdb`, `pg_ctl` and `postgres` are, the newest first.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        all.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    for (parent, below) in [
        ("/usr/lib/postgresql", "bin"),
        ("/usr/libexec", "."),
        ("/usr", "bin"),
        ("/opt/homebrew/opt", "bin"),
        ("/usr/local/opt", "bin"),
    ] {
        let mut dirs: Vec<PathBuf> =
            std::fs::read_dir(parent).into_iter().flatten().flatten().map(|e| e.path()).collect();
        dirs.sort_by_key(|dir| std::cmp::Reverse(number_in(dir)));
        all.extend(dirs.into_iter().map(|dir| dir.join(below)));
    }
    let has = |dir: &Path, name: &str| dir.join(name).is_file();
    all.into_iter()
        .filter_map(|dir| dir.join("postgres").canonicalize().ok()?.parent().map(Path::to_owned))
        .find(|dir| ["initdb", "pg_ctl", "postgres"].iter().all(|name| has(dir, name)))
        .expect("a PostgreSQL server: apt-get install postgresql, brew install postgresql")
}

fn number_in(dir: &Path) -> u32 {
    let name: OsString = dir.file_name().unwrap_or_default().to_owned();
    let digits: String =
        name.to_string_lossy().chars().filter(char::is_ascii_digit).take(4).collect();
    digits.parse().unwrap_or(0)
}

/// The schema that every statement of a test may leave out.
pub const SEARCH_PATH: &str = SCHEMA;
