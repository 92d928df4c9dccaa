//! The real `rollcall` binary as a process, and what the fault tests do to it.
//!
//! *Absent here*: rules, and anything that reaches into the server. These tests see what an
//! operator sees: a command line, signals, HTTP, and the tables behind it.
//!
//! Reading order: [`Serve`] and [`Server`]; `wait` (conditions with a bound), `scratch`
//! (directories that go away), `api` (HTTP), `proxy` (a line to PostgreSQL that breaks), `load`
//! (clients that remember what they were told), `audit` (whether that is true), `nodes` (several
//! servers on one database, at addresses that stay).

pub mod api;
pub mod audit;
pub mod load;
pub mod nodes;
pub mod proxy;
pub mod scratch;
pub mod wait;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::node::SECRET;
use wait::until;

/// First start: `initdb`, the schema, and two cores that others use, too.
pub const START_MAX: Duration = Duration::from_mins(1);
/// From SIGTERM to the end: requests in flight, then PostgreSQL's checkpoint.
pub const STOP_MAX: Duration = Duration::from_secs(45);

/// The binary, built once a run with the profile and target directory of this test.
///
/// Cargo builds a package's binaries for that package's own tests only, so we ask. Where nothing
/// has changed that takes half a second. `ROLLCALL_BIN` names one that is built already.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("ROLLCALL_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/<profile>/deps/it-0123456789abcdef
    let profile_dir = test.ancestors().nth(2).expect("a test lies in deps/").to_owned();
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = std::process::Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        // The whole workspace, or features are unified differently and dependencies built twice.
        .args(["build", "--quiet", "--workspace", "--bin", "rollcall", "--profile", profile])
        .arg("--target-dir")
        .arg(profile_dir.parent().expect("a profile lies in the target directory"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    profile_dir.join("rollcall")
}

/// A command of the binary, with nothing of our environment that would change what it does.
pub fn rollcall() -> Command {
    clean(Command::new(binary()))
}

/// The same, run by `wrapper`, such as `setpriv` with its arguments.
fn wrapped(wrapper: &[OsString], program: &Path) -> Command {
    let Some((first, rest)) = wrapper.split_first() else { return clean(Command::new(program)) };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    clean(command)
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b"ROLLCALL_") || bytes.starts_with(b"PG") || bytes == b"RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command of the binary to its end.
pub async fn run<const N: usize>(args: [&str; N]) -> Ran {
    Ran::of(rollcall().args(args)).await
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Ran {
    /// The exit status; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Runs it.
    pub async fn of(command: &mut Command) -> Self {
        let ran = tokio::time::timeout(START_MAX, command.output()).await;
        let Output { status, stdout, stderr } = ran.expect("it ends in time").unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// Standard output of a success.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }
}

/// How a server is to be started, once or again and again.
#[derive(Debug, Clone)]
pub struct Serve {
    wrapper: Vec<OsString>,
    program: PathBuf,
    data_dir: PathBuf,
    args: Vec<OsString>,
    own_key: bool,
}

impl Serve {
    /// With that data dir, on a free port of its own.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            wrapper: Vec::new(),
            program: binary().to_owned(),
            data_dir: data_dir.to_owned(),
            args: Vec::new(),
            own_key: false,
        }
    }

    /// With a further argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// With further arguments.
    #[must_use]
    pub fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args.extend(args.map(OsString::from));
        self
    }

    /// With a database that others run.
    #[must_use]
    pub fn database(self, url: &str) -> Self {
        self.args(["--database-url", url])
    }

    /// Run by another program, which gets ours and its arguments as its last ones.
    #[must_use]
    pub fn under<const N: usize>(mut self, wrapper: [&str; N]) -> Self {
        self.wrapper = wrapper.map(OsString::from).to_vec();
        self
    }

    /// A copy of the binary that others can reach.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    /// Signs tokens with the key of the data dir.
    #[must_use]
    pub fn own_key(mut self) -> Self {
        self.own_key = true;
        self
    }

    /// The command, for those who expect it to fail.
    pub fn command(&self) -> Command {
        let mut command = wrapped(&self.wrapper, &self.program);
        command.arg("serve").arg("--data-dir").arg(&self.data_dir);
        if !self.args.iter().any(|arg| arg == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !self.own_key {
            command.env("ROLLCALL_JWT_SECRET", SECRET);
        }
        command.args(&self.args);
        command
    }

    /// Starts it and waits until it may be called.
    pub async fn start(&self) -> Server {
        let mut server = self.spawn();
        server.ready().await;
        server
    }

    /// Starts it.
    pub fn spawn(&self) -> Server {
        let mut command = self.command();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Said::default();
        listen(child.stdout.take().unwrap(), said.clone());
        listen(child.stderr.take().unwrap(), said.clone());
        let embedded = !self.args.iter().any(|arg| arg == "--database-url");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let data_dir = embedded.then(|| self.data_dir.clone());
        Server { child, address, data_dir, said }
    }
}

/// Every line that a process has written.
#[derive(Debug, Clone, Default)]
pub struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap()
    }

    /// The first line that holds `text`.
    pub fn find(&self, text: &str) -> Option<String> {
        self.lines().iter().find(|line| line.contains(text)).cloned()
    }

    /// How many lines hold `text`.
    pub fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

fn listen(output: impl AsyncRead + Unpin + Send + 'static, said: Said) {
    let mut lines = BufReader::new(output).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            said.lines().push(line);
        }
    });
}

/// A server as a process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where its own PostgreSQL lives; none where it uses another's.
    data_dir: Option<PathBuf>,
    /// What it says.
    pub said: Said,
}

impl Server {
    /// Waits until it says that it may be called.
    pub async fn ready(&mut self) {
        let said = self.said.clone();
        let line = until("the server is ready", START_MAX, async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended ({status}):\n{}", said.tail());
            }
            said.find("rollcall ready on http://")
        });
        let line = line.await;
        self.address = line.rsplit('/').next().unwrap().parse().unwrap();
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it as `kill -9` does. Its PostgreSQL lives on.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(STOP_MAX, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("it does not stop:\n{}", self.said.tail())).unwrap()
    }

    /// Asks it to stop, as an operator does, and waits until it has.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// The memory that it has now, in bytes; 0 where the system does not say.
    pub fn memory_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or_default() * 1_024
    }

    /// The process of its own PostgreSQL.
    pub fn postmaster(&self) -> Option<Pid> {
        postmaster_of(self.data_dir.as_deref()?)
    }
}

/// The running postmaster of a data dir's cluster.
pub fn postmaster_of(data_dir: &Path) -> Option<Pid> {
    let home = std::fs::read_to_string(data_dir.join("pg.location"));
    let home = home.map_or_else(|_| data_dir.to_owned(), |text| PathBuf::from(text.trim()));
    scratch::postmaster(&home.join("pg"))
}
