//! Everything that is running while we measure rates: a stage, who is logged in, the references.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::Failure;
use crate::child::Server;
use crate::extent::Extent;
use crate::http::Request;
use crate::load::{self, Script, Timing};
use crate::past::Past;
use crate::plan::{Figure, SOCKETS};
use crate::reference::{self, Kind};
use crate::scripts::{Churn, Count, Login, Many, Names, UUID_WIDTH};
use crate::stage::{self, Setting, Stage};

/// Connections that log everybody in.
const LOGIN_CONNECTIONS: usize = 512;
/// How long that may take.
const LOGIN_TIME_MAX: Duration = Duration::from_mins(2);
/// Sessions whose last sign of life is older are not left to the next round: leases are 120 s.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(40);

/// What runs, and who is logged in.
pub(crate) struct Site {
    /// The server.
    pub(crate) stage: Stage,
    stock: Option<Server>,
    update: Option<Server>,
    redis: Option<Server>,
    /// Live ones.
    pub(crate) sessions: Arc<Names>,
    /// Theirs, in the same order.
    pub(crate) users: Arc<Names>,
    /// Users without sessions, who come and go.
    pub(crate) churn_users: Arc<Names>,
    /// Of those who come by WebSocket.
    pub(crate) socket_tokens: Vec<String>,
    /// What is asked about; none: nobody wants to know.
    pub(crate) past: Option<Past>,
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
        let stage = Stage::open(dir, rollcall, &Setting::default()).await?;
        let sessions = Names::make(extent.sessions, |_| uuid::Uuid::now_v7().to_string());
        let texts = sessions.texts();
        let mut site = Self {
            stage,
            stock: None,
            update: None,
            redis: None,
            users: Names::make(extent.sessions, |number| format!("u{number:07}")),
            churn_users: Names::make(extent.churn_users, |number| format!("c{number:07}")),
            sessions,
            socket_tokens: Vec::new(),
            past: None,
            kept_alive: Instant::now(),
            extent,
        };
        let url = site.stage.url();
        if figures.contains(&Figure::HeartbeatWs) {
            site.meet_sockets().await?;
        }
        if figures.contains(&Figure::Stock) {
            site.stock = Some(start_reference(&url, Kind::Stock, &texts, site.stage.dir()).await?);
        }
        if figures.contains(&Figure::Update) {
            site.update =
                Some(start_reference(&url, Kind::Update, &texts, site.stage.dir()).await?);
        }
        if figures.contains(&Figure::Redis) {
            site.redis = start_redis(site.stage.dir()).await?;
        }
        let about_the_past = [Figure::History, Figure::AsOf];
        let asked = figures.iter().any(|figure| about_the_past.contains(figure));
        if asked {
            Past::import(&site.stage, extent.spans).await?;
        }
        site.log_everybody_in().await?;
        if asked {
            site.past = Some(Past::note(&site.stage, extent.spans).await?);
        }
        Ok(site)
    }

    /// Who comes by WebSocket has a name and a token of its own.
    async fn meet_sockets(&mut self) -> Result<(), Failure> {
        let names: Vec<String> = (0..SOCKETS).map(|number| format!("w{number:07}")).collect();
        self.stage.log.introduce(&names).await?;
        let tokens = names.iter().map(|name| self.stage.token_of(name));
        self.socket_tokens = tokens.collect::<Result<_, _>>()?;
        Ok(())
    }

    async fn log_everybody_in(&mut self) -> Result<(), Failure> {
        let names = [self.users.texts(), self.churn_users.texts()].concat();
        self.stage.log.introduce(&names).await?;
        let (users, sessions) = (&self.users, &self.sessions);
        let began = Instant::now();
        let scripts = Login::each(LOGIN_CONNECTIONS, &self.stage.token, users, sessions);
        self.play_once(scripts, users.len()).await?;
        let per_second = users.len() as f64 / began.elapsed().as_secs_f64();
        eprintln!("{} users logged in, {per_second:.0}/s", users.len());
        self.kept_alive = Instant::now();
        // Seen before, so that a round of coming and going is about users who are known.
        let scripts = Churn::once(LOGIN_CONNECTIONS, &self.stage.token, &self.churn_users);
        self.play_once(scripts, self.churn_users.len() * 2).await
    }

    async fn play_once<S: Script>(&self, scripts: Vec<S>, asked: usize) -> Result<(), Failure> {
        let timing = Timing { warm_up: Duration::ZERO, measured: LOGIN_TIME_MAX };
        let tally = load::drive(self.stage.server.address, scripts, timing).await?;
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
            | Figure::HeartbeatWs
            | Figure::History
            | Figure::AsOf
            | Figure::HeartbeatBatch
            | Figure::Copy
            | Figure::Churn
            | Figure::Status
            | Figure::Status100 => Some(&self.stage.server),
        };
        server.map(|server| server.address)
    }

    /// A heartbeat of everybody, where rounds of other work have left leases to run down.
    pub(crate) async fn keep_alive(&mut self) -> Result<(), Failure> {
        if self.kept_alive.elapsed() < KEEP_ALIVE_EVERY {
            return Ok(());
        }
        self.stage.beat_all(&self.sessions).await?;
        self.kept_alive = Instant::now();
        Ok(())
    }

    /// Requests of many heartbeats.
    pub(crate) fn batches(&self, connections: usize, beats_each: usize) -> Vec<Many> {
        let body = stage::beats(beats_each);
        let request = Request::new("POST /v1/heartbeats", &self.stage.token, &body, UUID_WIDTH);
        Many::each(connections, &request, &self.sessions, Count::Accepted)
    }

    /// How much is done.
    pub(crate) fn extent(&self) -> Extent {
        self.extent
    }

    /// Ends everything and removes what it has left.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        for server in [self.stock, self.update, self.redis].into_iter().flatten() {
            server.stop().await?;
        }
        self.stage.close().await
    }
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
