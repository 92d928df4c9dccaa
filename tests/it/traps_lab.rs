//! What the tests of the traps stand on: a database, nodes without a sweeper, and appending by
//! hand, so that nothing happens but what the test does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use domain::command::{Guard, Open, SetClaim};
use domain::decide::decide;
use domain::{Body, Command, Context, DeviceKind, Policy, Reason, SessionId, Source, Status};
use domain::{Timestamp, UserNo};
use projections::batch::{Answer, Batch, Beat, Decided};
use projections::db::Database;
use projections::load::{self, Loaded};
use projections::names::Names;
use projections::{Asked, Error, Executed, Realm, RealmOptions, Receipt};
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tests::cluster::{self, TestDatabase};
use tests::{clock, eventually, invariants};

/// What the default policy gives.
pub(crate) const LEASE: TimeDelta = TimeDelta::seconds(120);
/// A step of time that no node takes for an outage, even where the machine is slow.
const STEP_S: f64 = 2.5;

/// A database and the nodes on it.
pub(crate) struct Lab {
    pub(crate) test: TestDatabase,
    pub(crate) database: Database,
    pub(crate) pool: PgPool,
    pub(crate) nodes: Vec<Arc<Realm>>,
    names: Names,
}

/// Somebody who holds the append lock.
pub(crate) struct Held(PgConnection);

/// One event as the log has it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(crate) struct Logged {
    pub(crate) position: i64,
    pub(crate) sequence: Option<i64>,
    pub(crate) name: String,
    pub(crate) session_id: Option<SessionId>,
    pub(crate) occurred_at: Timestamp,
    pub(crate) recorded_at: Timestamp,
    pub(crate) to_status: Option<String>,
    pub(crate) reason: Option<String>,
}

impl Lab {
    /// A database without a node: only what is appended by hand is there.
    pub(crate) async fn start() -> Self {
        let test = cluster::database().await;
        let database = Database::new(&test.url).unwrap();
        let options = test.url.parse::<sqlx::postgres::PgConnectOptions>().unwrap();
        let options = options.options([("search_path", cluster::SEARCH_PATH), ("timezone", "UTC")]);
        let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy_with(options);
        let names = Names::new(pool.clone());
        Self { test, database, pool, nodes: Vec::new(), names }
    }

    /// With so many nodes, which append and follow but do not sweep.
    pub(crate) async fn with_nodes(nodes: usize) -> Self {
        let mut lab = Self::start().await;
        for _ in 0..nodes {
            lab.join(Policy::default(), 50_000).await;
        }
        lab
    }

    /// One more node.
    pub(crate) async fn join(&mut self, seed: Policy, queue_max: usize) -> Arc<Realm> {
        let url = self.test.url.clone();
        let on_revoked = Box::new(|_| ());
        let seed = Some(seed);
        let realm = Realm::join(RealmOptions { url, queue_max, seed, on_revoked }).await.unwrap();
        let realm = Arc::new(realm);
        self.nodes.push(Arc::clone(&realm));
        realm
    }

    /// Asserts the invariants and removes everything.
    pub(crate) async fn finish(self) {
        invariants::check(&self.pool, &[]).await;
        self.remove().await;
    }

    /// Removes everything, where a test has written past `append`.
    pub(crate) async fn remove(self) {
        for node in &self.nodes {
            node.leave().await;
        }
        self.pool.close().await;
        self.test.drop().await;
    }

    /// A connection of the server's.
    pub(crate) async fn server(&self) -> PgConnection {
        self.database.server().await.unwrap()
    }

    /// Runs statements as the owner.
    pub(crate) async fn run(&self, statements: &str) {
        self.pool.execute(statements).await.unwrap();
    }

    /// One number.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    /// One instant.
    pub(crate) async fn instant(&self, query: &str) -> Timestamp {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    /// The database's clock, as it stands.
    pub(crate) async fn now(&self) -> Timestamp {
        self.instant("select log_clock()").await
    }

    /// Moves the database's clock alone, backwards too.
    pub(crate) async fn shift(&self, seconds: f64) {
        sqlx::query("update test_clock set shift = shift + $1 * interval '1 second'")
            .bind(seconds)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// Time passes while somebody listens.
    pub(crate) async fn advance(&self, seconds: f64) {
        let seconds = TimeDelta::microseconds((seconds * 1e6) as i64);
        self.advance_to(self.now().await + seconds).await;
    }

    /// Time passes while somebody listens, up to an instant.
    pub(crate) async fn advance_to(&self, at: Timestamp) {
        self.tick().await;
        while self.now().await < at {
            // Counted from the newest batch: however slow the machine is, this is no outage.
            sqlx::query(
                "update test_clock set shift = shift + greatest(interval '0', least(
                     $1 - log_clock(),
                     $2 * interval '1 second' - (log_clock() - (select max(recorded_at) from batch))
                 ))",
            )
            .bind(at)
            .bind(STEP_S)
            .execute(&self.pool)
            .await
            .unwrap();
            self.tick().await;
        }
    }

    /// Time passes, and nobody listens.
    pub(crate) async fn outage(&self, seconds: u64) {
        clock::shift(&self.pool, Duration::from_secs(seconds)).await;
        self.tick().await;
    }

    /// An empty batch, of every node too.
    pub(crate) async fn tick(&self) {
        self.append(&Batch::default()).await;
        for node in &self.nodes {
            node.tick().await.unwrap();
        }
    }

    /// Puts back the clocks that the migrations made.
    pub(crate) async fn real_clocks(&self) {
        self.run(
            "create or replace function log_clock() returns timestamptz language sql volatile as
                 'select clock_timestamp()';
             create or replace function intake_clock() returns timestamptz language sql stable as
                 'select statement_timestamp()';",
        )
        .await;
    }

    /// Waits until the database's clock has passed an instant.
    pub(crate) async fn passed(&self, at: Timestamp) {
        eventually("time passes", async || self.now().await > at).await;
    }

    /// Appends by hand.
    pub(crate) async fn append(&self, batch: &Batch) -> Answer {
        let mut connection = self.pool.acquire().await.unwrap();
        batch.send(&mut connection, Instant::now()).await.unwrap()
    }

    /// Appends decided commands; their verdicts.
    pub(crate) async fn commit(&self, commands: Vec<Decided>) -> String {
        self.append(&Batch { commands, ..Batch::default() }).await.verdicts
    }

    /// Appends plain heartbeats; their verdicts.
    pub(crate) async fn beat(&self, beats: Vec<Beat>) -> String {
        self.append(&Batch { beats, ..Batch::default() }).await.verdicts
    }

    /// The user's number.
    pub(crate) async fn user(&self, user_id: &str) -> UserNo {
        self.names.number(&user_id.parse().unwrap()).await.unwrap()
    }

    /// The user as the database has it.
    pub(crate) async fn load(&self, user_id: &str) -> Loaded {
        let user_no = self.user(user_id).await;
        load::by_number(&self.pool, &[user_no]).await.unwrap().remove(0)
    }

    /// What a node whose clock is right decides now.
    pub(crate) async fn decided(&self, user_id: &str, command: &Command) -> Decided {
        let now = "select greatest(log_clock(), (select max(recorded_at) from batch))";
        self.decided_at(user_id, command, self.instant(now).await).await
    }

    /// What a node decides that takes `now` for the time.
    pub(crate) async fn decided_at(
        &self,
        user_id: &str,
        command: &Command,
        now: Timestamp,
    ) -> Decided {
        let loaded = self.load(user_id).await;
        let silences = load::silences(&self.pool).await.unwrap();
        let policy = Policy::default();
        let (user_no, actor) = (loaded.user_no, Some(loaded.user_no));
        let context = Context { now, taken_at: now, policy: &policy, silences: &silences, actor };
        let decision = decide(loaded.state, command, &context);
        let mut words = Vec::new();
        for recorded in &decision.events {
            words.push(match word(&recorded.event.body) {
                Some(word) => Some(self.names.word(&word).await.unwrap()),
                None => None,
            });
        }
        Decided {
            user_no,
            user_id: loaded.user_id,
            expected: loaded.position,
            decision,
            words,
            detail: None,
            key: None,
            taken: Instant::now(),
        }
    }

    /// A login by hand.
    pub(crate) async fn open(&self, user_id: &str) -> SessionId {
        let session = SessionId::now_v7();
        let decided = self.decided(user_id, &open(session)).await;
        assert_eq!(self.commit(vec![decided]).await, "a");
        session
    }

    /// When the session's lease is over, by the database.
    pub(crate) async fn lease_end(&self, session: SessionId) -> Timestamp {
        sqlx::query_scalar(
            "select lease_end(last_seen, lease_ms) from live_session where session_id = $1",
        )
        .bind(session)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// Everything that the log has of a user, in order.
    pub(crate) async fn log(&self, user_id: &str) -> Vec<Logged> {
        let user_no = self.user(user_id).await;
        sqlx::query_as(
            "select position, sequence, type::text as name, session_id, occurred_at, recorded_at,
                    to_status::text, reason::text
             from event where user_no = $1 order by position",
        )
        .bind(user_no.0)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    /// The stored names of what the log has of a user, in order.
    pub(crate) async fn names_of(&self, user_id: &str) -> Vec<String> {
        self.log(user_id).await.into_iter().map(|event| event.name).collect()
    }

    /// Takes the append lock, as one who does not let go.
    pub(crate) async fn hold(&self) -> Held {
        let mut connection = self.database.owner().await.unwrap();
        connection.execute("begin").await.unwrap();
        connection.execute("select pg_advisory_xact_lock(append_lock_key())").await.unwrap();
        Held(connection)
    }

    /// Waits until so many wait for the append lock.
    pub(crate) async fn waiting(&self, count: i64) {
        let query = "select count(*) from pg_locks where locktype = 'advisory' and not granted
            and classid::bigint = append_lock_key() >> 32
            and database = (select oid from pg_database where datname = current_database())";
        eventually("callers wait for the lock", async || self.number(query).await == count).await;
    }
}

impl Held {
    /// Lets others append.
    pub(crate) async fn release(mut self) {
        self.0.execute("commit").await.unwrap();
        self.0.close().await.unwrap();
    }

    /// Whether whoever held it is still connected.
    pub(crate) async fn alive(&mut self) -> bool {
        self.0.execute("select 1").await.is_ok()
    }
}

/// The word that the log has a number for.
fn word(body: &Body) -> Option<String> {
    match body {
        Body::ClaimSet { source, .. }
        | Body::ClaimCleared { source }
        | Body::ClaimExpired { source } => Some(source.to_string()),
        Body::ActionAllowed { action, .. } | Body::ActionRefused { action, .. } => {
            Some(action.clone())
        }
        _ => None,
    }
}

/// A login.
pub(crate) fn open(session: SessionId) -> Command {
    let kind = DeviceKind::Web;
    Command::Open(Open { session, kind, idle_ms: 0, interaction_driven: false })
}

/// A login of a client that calls only when the person does something.
pub(crate) fn open_polling(session: SessionId) -> Command {
    let kind = DeviceKind::Web;
    Command::Open(Open { session, kind, idle_ms: 0, interaction_driven: true })
}

/// A logout.
pub(crate) fn close(session: SessionId) -> Command {
    Command::Close { session, reason: Reason::UserRequest }
}

/// The user's own word.
pub(crate) fn claim(status: Status) -> Command {
    let (source, while_active, expires, text) = (Source::Manual, false, None, None);
    Command::SetClaim(SetClaim { source, status, while_active, expires, text })
}

/// "Is the user online?"
pub(crate) fn guard() -> Command {
    let require = vec![Status::Online];
    Command::Guard(Guard {
        action: "start".to_owned(),
        require,
        claim: None,
        if_sequence: None,
        overlook: None,
    })
}

/// A plain heartbeat that the server took in so long ago.
pub(crate) fn beat(session: SessionId, user_no: UserNo, age: Duration) -> Beat {
    let taken = Instant::now().checked_sub(age).unwrap();
    Beat { session, user_no, idle_ms: 0, lease_ms: 120_000, active: true, taken }
}

/// The receipt of a command that stands in the log.
#[track_caller]
pub(crate) fn receipt(executed: Result<Executed, Error>) -> Receipt {
    match executed {
        Ok(Executed::Done(receipt)) => receipt,
        other => panic!("not done: {other:?}"),
    }
}

/// By nobody, just now.
pub(crate) fn asked() -> Asked {
    Asked::by(None)
}
