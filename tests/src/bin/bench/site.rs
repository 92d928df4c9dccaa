//! Everything that is running while we measure: PostgreSQL, the server, the references.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::embedded::Embedded;
use tokio::process::Command;

use crate::Failure;
use crate::child::{self, Server};
use crate::http::Request;
use crate::load::{self, Script, Timing};
use crate::log::Log;
use crate::plan::{Extent, Figure};
use crate::reference::{self, Kind};
use crate::scripts::{Churn, Count, Login, Many, Names, UUID_WIDTH};

/// Connections that log everybody in.
const LOGIN_CONNECTIONS: usize = 512;
/// How long that may take.
const LOGIN_TIME_MAX: Duration = Duration::from_mins(2);
/// Sessions whose last sign of life is older are not left to the next round: leases are 120 s.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(40);
/// Sessions kept alive by one request.
const KEEP_ALIVE_BATCH: usize = 1_000;

/// What runs, and who is logged in.
pub(crate) struct Site {
    dir: PathBuf,
    database: Embedded,
    server: Server,
    stock: Option<Server>,
    update: Option<Server>,
    redis: Option<Server>,
    /// Where acknowledged heartbeats must be found.
    pub(crate) log: Log,
    /// A service's.
    pub(crate) token: String,
    /// Live ones.
    pub(crate) sessions: Arc<Names>,
    /// Theirs, in the same order.
    pub(crate) users: Arc<Names>,
    /// Users without sessions, who come and go.
    pub(crate) churn_users: Arc<Names>,
    kept_alive: Instant,
    extent: Extent,
}

impl Site {
    /// Starts what these figures need, in `dir`, and logs everybody in.
    pub(crate) async fn open(
        dir: PathBuf,
        rollcall: &Path,
        figures: &[Figure],
        extent: Extent,
    ) -> Result<Self, Failure> {
        let database = Embedded::start(&dir).await?;
        let url = database.url();
        let server = serve(rollcall, &dir, &url).await?;
        let token = token(rollcall, &dir).await?;
        let log = Log::new(&url)?;
        if !log.is_durable().await? {
            return Err("PostgreSQL would lose data in a crash: nothing to measure".into());
        }
        let sessions = Names::make(extent.sessions, |_| uuid::Uuid::now_v7().to_string());
        let texts = sessions.texts();
        let mut site = Self {
            database,
            server,
            stock: None,
            update: None,
            redis: None,
            log,
            token,
            users: Names::make(extent.sessions, |number| format!("u{number:07}")),
            churn_users: Names::make(extent.churn_users, |number| format!("c{number:07}")),
            sessions,
            kept_alive: Instant::now(),
            extent,
            dir,
        };
        if figures.contains(&Figure::Stock) {
            site.stock = Some(start_reference(&url, Kind::Stock, &texts, &site.dir).await?);
        }
        if figures.contains(&Figure::Update) {
            site.update = Some(start_reference(&url, Kind::Update, &texts, &site.dir).await?);
        }
        if figures.contains(&Figure::Redis) {
            site.redis = start_redis(&site.dir).await?;
        }
        site.log_everybody_in().await?;
        Ok(site)
    }

    async fn log_everybody_in(&mut self) -> Result<(), Failure> {
        let names = [self.users.texts(), self.churn_users.texts()].concat();
        self.log.introduce(&names).await?;
        let (users, sessions) = (&self.users, &self.sessions);
        let began = Instant::now();
        let scripts = Login::each(LOGIN_CONNECTIONS, &self.token, users, sessions);
        self.play_once(scripts, users.len()).await?;
        let per_second = users.len() as f64 / began.elapsed().as_secs_f64();
        eprintln!("{} users logged in, {per_second:.0}/s", users.len());
        self.kept_alive = Instant::now();
        // Seen before, so that a round of coming and going is about users who are known.
        let scripts = Churn::once(LOGIN_CONNECTIONS, &self.token, &self.churn_users);
        self.play_once(scripts, self.churn_users.len() * 2).await
    }

    async fn play_once<S: Script>(&self, scripts: Vec<S>, asked: usize) -> Result<(), Failure> {
        let timing = Timing { warm_up: Duration::ZERO, measured: LOGIN_TIME_MAX };
        let tally = load::drive(self.server.address, scripts, timing).await?;
        if tally.errors > 0 || tally.acknowledged != asked as u64 {
            let why = tally.complaint.unwrap_or_default();
            return Err(format!("{} of {asked} done: {why}", tally.acknowledged).into());
        }
        Ok(())
    }

    /// Where a figure is measured; none: what it needs is not installed.
    pub(crate) fn address(&self, figure: Figure) -> Option<SocketAddr> {
        let server = match figure {
            Figure::Stock => self.stock.as_ref(),
            Figure::Update => self.update.as_ref(),
            Figure::Redis => self.redis.as_ref(),
            Figure::Noop
            | Figure::Heartbeat
            | Figure::Noop64
            | Figure::Heartbeat64
            | Figure::HeartbeatBatch
            | Figure::Copy
            | Figure::Churn
            | Figure::Status
            | Figure::Status100 => Some(&self.server),
        };
        server.map(|server| server.address)
    }

    /// The text of the server's `/metrics`.
    pub(crate) async fn metrics(&self) -> Result<String, Failure> {
        let request = Request::new("GET /metrics", &self.token, "", 0);
        let (_, body) = load::once(self.server.address, request.bytes()).await?;
        Ok(String::from_utf8(body)?)
    }

    /// A heartbeat of everybody, where rounds of other work have left leases to run down.
    pub(crate) async fn keep_alive(&mut self) -> Result<(), Failure> {
        if self.kept_alive.elapsed() < KEEP_ALIVE_EVERY {
            return Ok(());
        }
        let batch = KEEP_ALIVE_BATCH.min(self.sessions.len());
        let mut request =
            Request::new("POST /v1/heartbeats", &self.token, &beats(batch), UUID_WIDTH);
        for first in (0..self.sessions.len()).step_by(batch) {
            for slot in 0..batch {
                let session = (first + slot) % self.sessions.len();
                request.fill(slot, self.sessions.get(session));
            }
            let (status, body) = load::once(self.server.address, request.bytes()).await?;
            if status != 200 {
                return Err(String::from_utf8_lossy(&body).into_owned().into());
            }
        }
        self.kept_alive = Instant::now();
        Ok(())
    }

    /// Requests of many heartbeats.
    pub(crate) fn batches(&self, connections: usize, beats_each: usize) -> Vec<Many> {
        let body = beats(beats_each);
        let request = Request::new("POST /v1/heartbeats", &self.token, &body, UUID_WIDTH);
        Many::each(connections, &request, &self.sessions, Count::Accepted)
    }

    /// How much is done.
    pub(crate) fn extent(&self) -> Extent {
        self.extent
    }

    /// Ends everything and removes what it has left.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        let servers = [Some(self.server), self.stock, self.update, self.redis];
        for server in servers.into_iter().flatten() {
            server.stop().await?;
        }
        self.database.stop().await?;
        std::fs::remove_dir_all(&self.dir)?;
        Ok(())
    }
}

/// The body of so many heartbeats, with a slot for each session.
fn beats(count: usize) -> String {
    format!("[{}]", vec![r#"{"session_id":"{}","idle_ms":0}"#; count].join(","))
}

/// The server as shipped, but for where it listens and where its database is.
async fn serve(rollcall: &Path, dir: &Path, url: &str) -> Result<Server, Failure> {
    let mut command = Command::new(rollcall);
    command.args(["serve", "--listen", "127.0.0.1:0", "--database-url", url, "--data-dir"]);
    command.arg(dir);
    Server::start(command, "rollcall", dir).await
}

async fn token(rollcall: &Path, dir: &Path) -> Result<String, Failure> {
    let mut command = Command::new(rollcall);
    command.args(["token", "--sub", "bench", "--role", "service", "--ttl", "8h", "--data-dir"]);
    command.arg(dir);
    child::output_of(command).await
}

async fn start_reference(
    url: &str,
    kind: Kind,
    sessions: &[String],
    dir: &Path,
) -> Result<Server, Failure> {
    reference::prepare(url, kind, sessions).await?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["reference", kind.name(), "--url", url]);
    Server::start(command, kind.name(), dir).await
}

/// Redis that has every write on disk before it answers; none where it is not installed.
async fn start_redis(dir: &Path) -> Result<Option<Server>, Failure> {
    let installed = Command::new("redis-server").arg("--version").output().await;
    if !installed.is_ok_and(|output| output.status.success()) {
        return Ok(None);
    }
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(dir);
    Ok(Some(Server::start_silent(command, (Ipv4Addr::LOCALHOST, port).into()).await?))
}
