//! One running server: our child, or one that an earlier `rollcall` has left and we adopt.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::account::Account;
use super::binaries::Binaries;
use super::error::{Context, EmbeddedError};
use super::pidfile::{self, Holder};
use super::{logs, settings, socket};

/// Between two looks at the server's state.
pub(super) const POLL: Duration = Duration::from_millis(50);
/// Between two looks at a server that is not our child.
const ADOPTED_POLL: Duration = Duration::from_millis(200);
/// Recovery after a crash replays up to `max_wal_size`, on a slow disk for minutes.
const READY_LIMIT: Duration = Duration::from_mins(15);
/// After this long, a line says that we still wait.
const READY_SLOW: Duration = Duration::from_secs(10);
/// A fast shutdown writes a checkpoint.
const STOP_FAST_LIMIT: Duration = Duration::from_secs(20);
/// An immediate one writes nothing; the server kills what hangs after 5 s.
const STOP_IMMEDIATE_LIMIT: Duration = Duration::from_secs(10);

/// All that it takes to start the server of one cluster, again and again.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) tools: Binaries,
    pub(super) account: Account,
    pub(super) cluster: PathBuf,
    /// It stays the same over restarts: connection pools have it in their URL.
    pub(super) socket_dir: PathBuf,
}

/// A server's process. Cloning it gives another handle to the same one.
#[derive(Debug, Clone)]
pub(super) struct Postmaster {
    pid: Pid,
    /// How it ended, once it has.
    ended: watch::Receiver<Option<String>>,
}

impl Launch {
    /// Starts the server, which is then not ready yet. The caller holds the lock, and has seen that
    /// none runs.
    pub(super) fn spawn(&self) -> Result<Postmaster, EmbeddedError> {
        socket::ensure(&self.socket_dir, &self.account)
            .or_say("make the socket directory", &self.socket_dir)?;
        pidfile::clear_stale(&self.cluster, &self.socket_dir);
        pidfile::end_orphans(&self.cluster);
        settings::write(&self.cluster)?;
        let log = logs::open_early(&self.cluster).or_say("write in", &self.cluster)?;
        let copy = log.try_clone().or_say("write in", &self.cluster)?;
        let program = self.tools.postgres();
        let mut command = self.account.command(&program);
        command
            .args(settings::arguments(&self.cluster, &self.socket_dir))
            .stdout(log)
            .stderr(copy)
            // A Ctrl-C in our terminal is ours: we stop the server after our last answer.
            .process_group(0);
        let child = command.spawn().or_say("run", &program)?;
        Postmaster::own(child).or_say("run", &program)
    }
}

impl Postmaster {
    fn own(mut child: Child) -> std::io::Result<Self> {
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = id.ok_or_else(|| std::io::Error::other("it has ended already"))?;
        let (tell, ended) = watch::channel(None);
        tokio::spawn(async move {
            let how =
                child.wait().await.map_or_else(|e| e.to_string(), |status| status.to_string());
            tell.send_replace(Some(how));
        });
        Ok(Self { pid, ended })
    }

    /// Takes over a server that is not our child, and so has to be watched from outside.
    pub(super) fn adopt(pid: Pid, cluster: PathBuf) -> Self {
        let (tell, ended) = watch::channel(None);
        tokio::spawn(async move {
            while pidfile::holder(pid, &cluster) == Holder::Server {
                sleep(ADOPTED_POLL).await;
            }
            tell.send_replace(Some("it is gone".to_owned()));
        });
        Self { pid, ended }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// Waits for its end, and says how it came.
    pub(super) async fn wait(&self) -> String {
        let mut ended = self.ended.clone();
        let how = ended.wait_for(Option::is_some).await.ok().and_then(|how| how.clone());
        how.unwrap_or_else(|| "it is no longer watched".to_owned())
    }

    /// Waits until it takes connections: after a crash, until it has recovered.
    pub(super) async fn ready(&self, cluster: &Path) -> Result<(), EmbeddedError> {
        let began = Instant::now();
        let mut said_slow = false;
        loop {
            if let Some(how) = self.ended() {
                return Err(EmbeddedError::Died { how, log: logs::tail(cluster) });
            }
            if pidfile::read(cluster).is_some_and(|file| file.pid == self.pid && file.is_ready()) {
                return Ok(());
            }
            if began.elapsed() > READY_LIMIT {
                return Err(EmbeddedError::NotReady {
                    limit: READY_LIMIT,
                    log: logs::tail(cluster),
                });
            }
            if began.elapsed() > READY_SLOW && !said_slow {
                said_slow = true;
                tracing::warn!(pid = self.pid(), "PostgreSQL is recovering: still waiting for it");
            }
            let _ = timeout(POLL, self.wait()).await;
        }
    }

    /// Asks for a fast shutdown, and does not wait for it.
    pub(super) fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Stops it: fast, which ends connections and writes a checkpoint; if that takes too long,
    /// immediately, which loses nothing either but makes the next start recover.
    pub(super) async fn stop(&self) -> Result<(), EmbeddedError> {
        let steps = [(Signal::INT, STOP_FAST_LIMIT), (Signal::QUIT, STOP_IMMEDIATE_LIMIT)];
        for (signal, limit) in steps {
            self.signal(signal);
            if timeout(limit, self.wait()).await.is_ok() {
                return Ok(());
            }
            tracing::warn!(pid = self.pid(), ?signal, ?limit, "PostgreSQL has not stopped in time");
        }
        Err(EmbeddedError::WontStop(self.pid()))
    }

    fn signal(&self, signal: Signal) {
        if self.ended().is_none()
            && let Err(error) = kill_process(self.pid, signal)
        {
            tracing::debug!(pid = self.pid(), %error, "PostgreSQL has ended by itself");
        }
    }
}
