//! A private PostgreSQL in the data dir, for whoever passes no `--database-url`.
//!
//! It is a full server with everything that guards data switched on; private in that it listens on
//! a Unix socket alone, in a directory that only its own account (and root) can enter.
//!
//! *Absent here*: SQL, migrations, connection pools. This gives a URL and keeps what is behind it
//! alive.
//!
//! Reading order: [`Embedded`]; `home` (where the cluster lives, and the lock), `account` (who runs
//! it), `binaries` (with what), `cluster` (made once), `settings` and `socket` (how it runs),
//! `process` and `pidfile` (while it runs), `logs`, `error`.

mod account;
mod binaries;
mod cluster;
mod error;
mod home;
mod logs;
mod pidfile;
mod process;
mod settings;
mod socket;
#[cfg(test)]
mod tests;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use account::Account;
use error::Context;
pub use error::EmbeddedError;
use home::{Home, Lock};
use process::{Launch, POLL, Postmaster};

/// How long a command waits for a server that is being started beside it.
const ATTACH_LIMIT: Duration = Duration::from_mins(1);
/// Between two attempts to start the server again: doubled each time, within these.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);
/// What a server killed just before has left may be in the way of the first attempt.
const START_RETRIES_MAX: u32 = 4;
/// How often old log files are looked for.
const PRUNE_EVERY: Duration = Duration::from_mins(1);

/// A running embedded database: ours, or that of a `rollcall serve` beside us.
///
/// Dropping one that is ours asks the server to shut down, without waiting; [`Embedded::stop`]
/// waits. After a `kill -9` the server lives on, and the next start adopts it.
#[derive(Debug)]
pub struct Embedded {
    socket_dir: PathBuf,
    owned: Option<Owned>,
}

/// What only the owner has.
#[derive(Debug)]
struct Owned {
    launch: Launch,
    postmaster: Mutex<Postmaster>,
    /// Cancelled by [`Embedded::stop`]: no restart from then on.
    closing: CancellationToken,
    _lock: Lock,
}

/// Where the embedded database of a data dir is, whether it runs or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    socket_dir: PathBuf,
    /// It takes connections now.
    pub running: bool,
}

impl Located {
    /// The database's URL, for its owner `rollcall`.
    pub fn url(&self) -> String {
        self.url_as(socket::DATABASE)
    }

    /// The same for another role. No password: reaching the socket is what is guarded.
    pub fn url_as(&self, role: &str) -> String {
        socket::url(&self.socket_dir, role)
    }
}

impl Embedded {
    /// Starts the database of `data_dir`, which is made if need be, and waits until it takes
    /// connections. A server that outlived an earlier `rollcall` is adopted.
    pub async fn start(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let data_dir = home::prepare(data_dir)?;
        let fallback = Path::new(home::FALLBACK_ROOT);
        let found = home::find(&data_dir, fallback)?;
        let cluster = found.as_ref().map(Home::cluster);
        let major = found.as_ref().map(Home::major).transpose()?.flatten();
        let account = Account::choose(cluster.as_deref())?;
        let tools = binaries::find(&account, cluster.as_deref().zip(major)).await?;
        let home = match found {
            Some(home) => home,
            None => home::choose(&data_dir, fallback, &account, &tools).await?,
        };
        let lock = home.lock()?;
        if home.major()?.is_none() {
            cluster::create(&home, &tools, &account).await?;
        }
        home.note_in(&data_dir)?;

        let cluster = home.cluster();
        let adopted = adopt(&cluster).await?;
        let socket_dir = match &adopted {
            Some((_, socket_dir)) => socket_dir.clone(),
            None => socket::choose(home.dir(), &account)?,
        };
        let launch = Launch { tools, account, cluster, socket_dir: socket_dir.clone() };
        let postmaster = match adopted {
            Some((postmaster, _)) => postmaster,
            None => launch.spawn()?,
        };
        let owned = Owned {
            launch,
            postmaster: Mutex::new(postmaster),
            closing: CancellationToken::new(),
            _lock: lock,
        };
        // From here on a failure, too, stops the server: by the drop.
        let embedded = Self { socket_dir, owned: Some(owned) };
        embedded.first_start().await?;
        Ok(embedded)
    }

    /// Uses the server that runs for `data_dir`, owning nothing; where none runs, starts one, which
    /// is then ours to stop. For commands that may run beside a `rollcall serve`, or without.
    pub async fn attach_or_start(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let began = Instant::now();
        loop {
            if let Some(located) = Self::locate(data_dir)?
                && located.running
            {
                return Ok(Self { socket_dir: located.socket_dir, owned: None });
            }
            match Self::start(data_dir).await {
                // Its owner is about to start it.
                Err(EmbeddedError::InUse { .. }) if began.elapsed() < ATTACH_LIMIT => {
                    sleep(POLL).await;
                }
                done => return done,
            }
        }
    }

    /// Whether `data_dir` has a database, running or not. Starts and changes nothing.
    pub fn is_made(data_dir: &Path) -> Result<bool, EmbeddedError> {
        let Ok(data_dir) = data_dir.canonicalize() else { return Ok(false) };
        Ok(home::find(&data_dir, Path::new(home::FALLBACK_ROOT))?.is_some())
    }

    /// Where the database of `data_dir` is, or would be once it runs again. None where there was
    /// never one. Starts and changes nothing.
    pub fn locate(data_dir: &Path) -> Result<Option<Located>, EmbeddedError> {
        let Ok(data_dir) = data_dir.canonicalize() else { return Ok(None) };
        let Some(home) = home::find(&data_dir, Path::new(home::FALLBACK_ROOT))? else {
            return Ok(None);
        };
        let cluster = home.cluster();
        if let Some(server) = pidfile::running(&cluster)
            && let Some(socket_dir) = server.reachable_at()
        {
            let socket_dir = socket_dir.to_owned();
            return Ok(Some(Located { socket_dir, running: server.is_ready() }));
        }
        let owner = fs::metadata(&cluster).or_say("read", &cluster)?.uid();
        let socket_dir = socket::existing(home.dir(), owner);
        Ok(socket_dir.map(|socket_dir| Located { socket_dir, running: false }))
    }

    /// The database's URL, for its owner `rollcall`. It stays the same while this value lives.
    pub fn url(&self) -> String {
        self.url_as(socket::DATABASE)
    }

    /// The same for another role.
    pub fn url_as(&self, role: &str) -> String {
        socket::url(&self.socket_dir, role)
    }

    /// Starts the server again whenever it dies, until `shutdown` or [`Embedded::stop`]. A crash of
    /// a single backend needs none of this: the server recovers from that by itself.
    pub async fn supervise(&self, shutdown: CancellationToken) {
        let Some(owned) = &self.owned else {
            return shutdown.cancelled().await; // Its owner sees to it.
        };
        loop {
            let postmaster = owned.current().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = owned.closing.cancelled() => return,
                how = postmaster.wait() => {
                    tracing::error!(pid = postmaster.pid(), how, "PostgreSQL died: restarting it");
                }
                () = sleep(PRUNE_EVERY) => {
                    logs::prune(&owned.launch.cluster);
                    continue;
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = owned.closing.cancelled() => return,
                () = owned.revive() => {}
            }
        }
    }

    /// Shuts the server down and waits for it, within bounds. Does nothing for one that is not
    /// ours, nor a second time.
    pub async fn stop(&self) -> Result<(), EmbeddedError> {
        let Some(owned) = &self.owned else { return Ok(()) };
        owned.closing.cancel();
        let postmaster = owned.current().clone();
        if postmaster.ended().is_none() {
            postmaster.stop().await?;
            tracing::info!(pid = postmaster.pid(), "PostgreSQL has stopped");
        }
        Ok(())
    }

    async fn first_start(&self) -> Result<(), EmbeddedError> {
        let Some(owned) = &self.owned else { return Ok(()) };
        logs::prune(&owned.launch.cluster);
        let postmaster = owned.current().clone();
        let mut started = postmaster.ready(&owned.launch.cluster).await;
        let mut pause = RESTART_PAUSE_MIN;
        for _ in 0..START_RETRIES_MAX {
            let Err(EmbeddedError::Died { how, log }) = &started else { break };
            tracing::warn!(how, log, "PostgreSQL has not started: trying again");
            sleep(pause).await;
            pause *= 2;
            started = owned.restart().await;
        }
        started?;
        tracing::info!(pid = owned.current().pid(), "PostgreSQL is ready");
        Ok(())
    }
}

impl Owned {
    fn current(&self) -> MutexGuard<'_, Postmaster> {
        // Nothing panics while it is held, and a handle is whole at any time.
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries until the server is ready again.
    async fn revive(&self) {
        let mut pause = RESTART_PAUSE_MIN;
        loop {
            match self.restart().await {
                Ok(()) => return tracing::info!(pid = self.current().pid(), "PostgreSQL is back"),
                Err(error) => tracing::warn!(%error, ?pause, "PostgreSQL is not back yet"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    }

    async fn restart(&self) -> Result<(), EmbeddedError> {
        let before = self.current().clone();
        if before.ended().is_none() {
            before.stop().await?; // It lived, but never became ready.
        }
        let postmaster = {
            let mut current = self.current();
            if self.closing.is_cancelled() {
                return Ok(());
            }
            // Kept at once: if we are cancelled while it starts, `stop` must find it.
            *current = self.launch.spawn()?;
            current.clone()
        };
        postmaster.ready(&self.launch.cluster).await
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.closing.is_cancelled() {
            self.current().interrupt();
        }
    }
}

/// The server that runs for `cluster` already, and its socket directory. One that is no use, as
/// it is shutting down or its socket has been removed, is stopped instead.
async fn adopt(cluster: &Path) -> Result<Option<(Postmaster, PathBuf)>, EmbeddedError> {
    let Some(server) = pidfile::running(cluster) else { return Ok(None) };
    let postmaster = Postmaster::adopt(server.pid, cluster.to_owned());
    let pid = postmaster.pid();
    if let Some(socket_dir) = server.reachable_at()
        && !server.is_stopping()
    {
        tracing::warn!(pid, "adopting the PostgreSQL that an earlier rollcall has left running");
        return Ok(Some((postmaster, socket_dir.to_owned())));
    }
    tracing::warn!(pid, "an earlier PostgreSQL is shutting down, or out of reach: ending it");
    postmaster.stop().await?;
    Ok(None)
}

/// A number that no other call gives, nor one in an earlier process: a name for things that pass.
fn unique() -> u128 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    now.as_nanos() << u16::BITS | u128::from(call)
}
