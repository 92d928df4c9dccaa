//! Everybody who watches: sockets in processes of their own, which say when the last of them has
//! heard of a change. Run by `bench watch`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use crate::Failure;
use ::tests::ws::{self, Socket};

/// Sockets in one process.
const SOCKETS_A_PROCESS: usize = 2_500;
/// Connections that are made at one time. Each is a login, and nobody is in a hurry.
const OPENED_AT_ONCE: usize = 32;
/// How long it may take until all watch.
const READY_PATIENCE: Duration = Duration::from_mins(3);
/// How long it may take until all have heard of a change.
const CHANGE_PATIENCE: Duration = Duration::from_secs(30);
/// The line by which a process says that all its sockets watch.
const READY: &str = "watching";
/// What a change begins with.
pub(crate) const CHANGE: &[u8] = br#"{"type":"status_changed""#;
/// What the answer to a request has in it.
pub(crate) const ACK: &[u8] = br#"{"type":"ack""#;
/// Microseconds in a second.
const US: u64 = 1_000_000;

/// `bench watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Whom to ask
    address: SocketAddr,
    /// Whom to watch
    user: String,
    /// A token a line, one for each socket
    tokens: PathBuf,
    /// Lines to skip
    first: usize,
    /// Lines to use
    count: usize,
}

/// The wall clock, in microseconds: the same for all processes of a machine.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * US + u64::from(since.subsec_micros())
}

/// What a client says to hear of one user's changes.
pub(crate) fn watch_frame(user: &str) -> Vec<u8> {
    ws::text_frame(&format!(r#"{{"type":"watch","users":["{user}"],"ref":1}}"#))
}

/// Opens the sockets, and prints a line for each change that all of them have heard of.
pub(crate) async fn watch(args: WatchArgs) -> Result<(), Failure> {
    // The name by which `machine` tells us from the references; where it cannot be set, we are
    // counted with them.
    drop(std::fs::write("/proc/self/comm", "watchers"));
    let (tell, told) = tokio::sync::oneshot::channel();
    // One thread with a runtime of its own: the leanest way to read from many.
    thread::Builder::new().name("watchers".to_owned()).spawn(move || {
        // An error says that nobody waits any longer.
        drop(tell.send(watch_all(&args)));
    })?;
    told.await?
}

fn watch_all(args: &WatchArgs) -> Result<(), Failure> {
    let tokens = std::fs::read_to_string(&args.tokens)?;
    let tokens: Vec<&str> = tokens.lines().skip(args.first).take(args.count).collect();
    if tokens.len() < args.count {
        return Err("fewer tokens than sockets".into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let sockets: Vec<_> = stream::iter(tokens)
            .map(|token| begin(args.address, token, &args.user))
            .buffer_unordered(OPENED_AT_ONCE)
            .try_collect()
            .await?;
        say(READY)?;
        let heard = Arc::new(AtomicU64::new(0));
        let all = args.count as u64;
        let mut tasks = tokio::task::JoinSet::new();
        for socket in sockets {
            tasks.spawn(listen(socket, Arc::clone(&heard), all));
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    })
}

async fn begin(address: SocketAddr, token: &str, user: &str) -> Result<Socket<TcpStream>, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut socket = Socket::open(stream, token).await?;
    socket.send(&ws::text_frame(r#"{"type":"open"}"#)).await?;
    socket.send(&watch_frame(user)).await?;
    socket.next_with(ACK).await?;
    Ok(socket)
}

/// Whoever is the last to hear of a change says so. The next one comes only then.
async fn listen(
    mut socket: Socket<TcpStream>,
    heard: Arc<AtomicU64>,
    all: u64,
) -> Result<(), Failure> {
    for change in 1.. {
        socket.next_with(CHANGE).await?;
        let heard = heard.fetch_add(1, Ordering::Relaxed) + 1;
        if heard.div_ceil(all) != change {
            return Err("a socket has missed a change, or heard it twice".into());
        }
        if heard.is_multiple_of(all) {
            say(&now_us().to_string())?;
        }
    }
    Ok(())
}

fn say(line: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()?;
    Ok(())
}

/// Processes that watch, as seen from outside.
pub(crate) struct Watchers {
    processes: Vec<(Child, Lines<BufReader<ChildStdout>>)>,
}

impl Watchers {
    /// Starts as many as `count` sockets take, and waits until all of them watch.
    pub(crate) async fn start(
        address: SocketAddr,
        user: &str,
        tokens: &Path,
        count: usize,
    ) -> Result<Self, Failure> {
        let mut processes = Vec::new();
        for first in (0..count).step_by(SOCKETS_A_PROCESS) {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("watch").arg(address.to_string()).arg(user).arg(tokens);
            command.arg(first.to_string());
            command.arg(SOCKETS_A_PROCESS.min(count - first).to_string());
            command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
            let mut child = command.spawn()?;
            let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
            let line = tokio::time::timeout(READY_PATIENCE, lines.next_line()).await??;
            if line.as_deref() != Some(READY) {
                return Err("who should watch has ended".into());
            }
            processes.push((child, lines));
        }
        Ok(Self { processes })
    }

    /// When the last socket of all has heard of the next change, in microseconds.
    pub(crate) async fn next_change(&mut self) -> Result<u64, Failure> {
        let mut last = 0;
        for (_, lines) in &mut self.processes {
            let line = tokio::time::timeout(CHANGE_PATIENCE, lines.next_line()).await??;
            let at: u64 = line.ok_or("who watched has ended")?.parse()?;
            last = last.max(at);
        }
        Ok(last)
    }

    /// Ends them all.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        for (mut child, _) in self.processes {
            child.kill().await?;
        }
        Ok(())
    }
}
