//! Over a real PostgreSQL; without one, each test says that it is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// More than any start needs on a busy machine.
const BOUND: Duration = Duration::from_mins(1);

/// A directory that others can pass through, removed in the end.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("rollcall-test-{:x}", unique()));
        fs::create_dir(&dir).unwrap();
        Self(dir.canonicalize().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A test that failed leaves no server behind.
        if let Some(server) = pidfile::running(&self.0.join("pg")) {
            let _ = kill_process(server.pid, Signal::KILL);
        }
        pidfile::end_orphans(&self.0.join("pg"));
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn installed() -> bool {
    let account = Account::choose(None).unwrap();
    let found = binaries::find(&account, None).await.is_ok();
    if !found {
        println!("skipped: no PostgreSQL server is installed here");
    }
    found
}

/// A session in PostgreSQL's wire protocol, just enough of it.
struct Session(UnixStream);

impl Session {
    fn open(url: &str) -> Result<Self, String> {
        let host = url.strip_prefix("postgres://rollcall@").unwrap();
        let host = host.strip_suffix(":5432/rollcall").unwrap().replace("%2F", "/");
        let stream = UnixStream::connect(socket::path_in(Path::new(&host)));
        let stream = stream.map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let mut session = Self(stream);
        let mut hello = 0x0003_0000_i32.to_be_bytes().to_vec();
        hello.extend(b"user\0rollcall\0database\0rollcall\0\0");
        session.send(None, &hello)?;
        session.answer().map(|_| session)
    }

    fn ask(&mut self, sql: &str) -> Result<String, String> {
        self.send(Some(b'Q'), format!("{sql}\0").as_bytes())?;
        self.answer()
    }

    fn send(&mut self, kind: Option<u8>, body: &[u8]) -> Result<(), String> {
        let mut bytes: Vec<u8> = kind.into_iter().collect();
        bytes.extend((i32::try_from(body.len()).unwrap() + 4).to_be_bytes());
        bytes.extend(body);
        self.0.write_all(&bytes).map_err(|error| error.to_string())
    }

    /// The first columns of all rows until the server is ready for the next question.
    fn answer(&mut self) -> Result<String, String> {
        let (mut rows, mut refused) = (Vec::new(), None);
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head).map_err(|error| error.to_string())?;
            let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
            let mut body = vec![0; length - 4];
            self.0.read_exact(&mut body).map_err(|error| error.to_string())?;
            match head[0] {
                b'D' => rows.push(String::from_utf8_lossy(&body[6..]).into_owned()),
                b'E' => refused = Some(String::from_utf8_lossy(&body).into_owned()),
                b'Z' => return refused.map_or(Ok(rows.join(" ")), Err),
                _ => {}
            }
            if let Some(fatal) = refused.take_if(|text| text.contains("FATAL")) {
                return Err(fatal);
            }
        }
    }
}

fn ask(url: &str, sql: &str) -> Result<String, String> {
    Session::open(url)?.ask(sql)
}

fn pid_of(database: &Embedded) -> i32 {
    database.owned.as_ref().unwrap().current().pid()
}

fn kill_server(database: &Embedded) {
    kill_process(Pid::from_raw(pid_of(database)).unwrap(), Signal::KILL).unwrap();
}

/// Leaves the server running and the lock free, as `kill -9` of a `rollcall` does.
fn abandon(database: Embedded) {
    database.owned.as_ref().unwrap().closing.cancel();
    drop(database);
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        // Between two looks at a process.
        sleep(POLL).await;
    }
}

/// A session with a statement that never looks up from its work: as an orphan it would hold the
/// shared memory for hours.
async fn keep_busy(url: &str) -> Session {
    let mut busy = Session::open(url).unwrap();
    let long = b"select count(*) from generate_series(1, 99999) a, generate_series(1, 99999) b\0";
    busy.send(Some(b'Q'), long).unwrap();
    until("the long statement runs", || {
        let others = "select count(*) from pg_stat_activity where state = 'active'";
        ask(url, others) == Ok("2".to_owned())
    })
    .await;
    busy
}

/// Kills the server, waits until supervision has another one up, and gives the new process id.
async fn kill_and_wait(database: &Arc<Embedded>) -> i32 {
    let before = pid_of(database);
    kill_server(database);
    let url = database.url();
    until("another server answers", || {
        pid_of(database) != before && ask(&url, "select 1") == Ok("1".to_owned())
    })
    .await;
    pid_of(database)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_first_start_makes_a_second_one_finds_again() {
    if !installed().await {
        return;
    }
    let scratch = Scratch::new();
    let data_dir = scratch.path().join("data"); // Made by the start.
    assert_eq!(Embedded::locate(&data_dir).unwrap(), None);

    let first = Embedded::start(&data_dir).await.unwrap();
    let url = first.url();
    for (setting, value) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("jit", "off"),
        ("TimeZone", "UTC"),
        ("checkpoint_timeout", "15min"),
        ("default_text_search_config", "pg_catalog.english"), // Of initdb: its file is included.
    ] {
        assert_eq!(ask(&url, &format!("show {setting}")), Ok(value.to_owned()), "{setting}");
    }
    ask(&url, "create table kept as select 42 as answer").unwrap();
    ask(&url, "alter system set work_mem = '5MB'").unwrap();

    let refused = Embedded::start(&data_dir).await.unwrap_err();
    assert!(matches!(refused, EmbeddedError::InUse { .. }), "{refused}");

    let beside = Embedded::attach_or_start(&data_dir).await.unwrap();
    assert_eq!(beside.url(), url);
    beside.stop().await.unwrap();
    drop(beside);
    assert!(Embedded::locate(&data_dir).unwrap().unwrap().running, "it was not ours to stop");

    first.stop().await.unwrap();
    let located = Embedded::locate(&data_dir).unwrap().unwrap();
    assert_eq!((located.url(), located.running), (url.clone(), false));
    drop(first);

    // A crash long ago; its process id is somebody else's by now: ours.
    let pid_file = format!("{}\n{}\n1\n5432\n", std::process::id(), data_dir.display());
    fs::write(data_dir.join("pg/postmaster.pid"), pid_file).unwrap();

    let second = Embedded::attach_or_start(&data_dir).await.unwrap();
    assert_eq!(ask(&second.url(), "select answer from kept"), Ok("42".to_owned()));
    assert_eq!(ask(&second.url(), "show work_mem"), Ok("5MB".to_owned()));
    assert_eq!(second.url(), url);
    second.stop().await.unwrap();
    assert_eq!(pidfile::read(&data_dir.join("pg")), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_comes_back_under_its_url_however_busy_it_was() {
    if !installed().await {
        return;
    }
    let scratch = Scratch::new();
    let database = Arc::new(Embedded::start(scratch.path()).await.unwrap());
    ask(&database.url(), "create table kept as select 42 as answer").unwrap();
    let shutdown = CancellationToken::new();
    let supervisor = tokio::spawn({
        let (database, shutdown) = (Arc::clone(&database), shutdown.clone());
        async move { database.supervise(shutdown).await }
    });

    let busy = keep_busy(&database.url()).await;
    kill_and_wait(&database).await;
    drop(busy);
    kill_and_wait(&database).await;
    assert_eq!(ask(&database.url(), "select answer from kept"), Ok("42".to_owned()));

    shutdown.cancel();
    supervisor.await.unwrap();

    // The same without anybody there to restart it: `kill -9` of both.
    let busy = keep_busy(&database.url()).await;
    kill_server(&database);
    abandon(Arc::into_inner(database).unwrap());
    let database = Embedded::start(scratch.path()).await.unwrap();
    assert_eq!(ask(&database.url(), "select answer from kept"), Ok("42".to_owned()));
    database.stop().await.unwrap();
    assert!(Session::open(&database.url()).is_err());
    drop(busy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_outlived_its_rollcall_is_adopted_supervised_and_stopped() {
    if !installed().await {
        return;
    }
    let scratch = Scratch::new();
    let first = Embedded::start(scratch.path()).await.unwrap();
    let left = pid_of(&first);
    abandon(first);

    let second = Arc::new(Embedded::start(scratch.path()).await.unwrap());
    assert_eq!(pid_of(&second), left, "the same server");
    let supervisor = tokio::spawn({
        let second = Arc::clone(&second);
        async move { second.supervise(CancellationToken::new()).await }
    });
    assert_ne!(kill_and_wait(&second).await, left);
    second.stop().await.unwrap();
    supervisor.await.unwrap(); // `stop` ends it, too.
    drop(second);

    // One that is dropped without a stop is still shutting down when the next start comes.
    drop(Embedded::start(scratch.path()).await.unwrap());
    let third = Embedded::start(scratch.path()).await.unwrap();
    let fourth = pid_of(&third);
    abandon(third);
    // An adopted one is stopped from outside, as nobody's child.
    let last = Embedded::start(scratch.path()).await.unwrap();
    assert_eq!(pid_of(&last), fourth);
    last.stop().await.unwrap();
    assert_eq!(pidfile::running(&scratch.path().join("pg")), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_initdb_is_done_again() {
    if !installed().await {
        return;
    }
    let scratch = Scratch::new();
    let unfinished = || {
        let entries = fs::read_dir(scratch.path()).unwrap().flatten();
        entries
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().contains(cluster::UNFINISHED))
    };
    tokio::select! {
        done = Embedded::start(scratch.path()) => panic!("not interrupted: {done:?}"),
        () = until("initdb is at work", || {
            unfinished().is_some_and(|dir| dir.join("PG_VERSION").exists())
        }) => {}
    }
    assert!(unfinished().is_some());
    assert_eq!(Embedded::locate(scratch.path()).unwrap(), None, "half a cluster is none");

    let database = Embedded::start(scratch.path()).await.unwrap();
    assert_eq!(unfinished(), None);
    assert_eq!(ask(&database.url(), "select 1"), Ok("1".to_owned()));
    database.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_cluster_is_left_alone() {
    if !installed().await {
        return;
    }
    let scratch = Scratch::new();
    fs::create_dir(scratch.path().join("pg")).unwrap();
    fs::write(scratch.path().join("pg/thesis.tex"), "mine").unwrap();
    let refused = Embedded::start(scratch.path()).await.unwrap_err();
    assert!(matches!(refused, EmbeddedError::NotACluster(_)), "{refused}");
    assert!(scratch.path().join("pg/thesis.tex").exists());
}
