//! One database = one log = one total order: a realm. What the server calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::policy::PolicyPatch;
use domain::{Command, Policy, Position, Presence, SessionId, Silences, UserId, UserNo};
use domain::{Timestamp, lapse};
use sqlx::{Connection, PgPool};
use tokio::task::JoinHandle;

use crate::appender::Appender;
use crate::batch::{Beat, SystemEvent};
use crate::clock::SILENCE;
use crate::db::Database;
use crate::feed::Feed;
use crate::holders::Holders;
use crate::names::Names;
use crate::policy::Policies;
use crate::queue::{Beaten, Job, Queue};
use crate::revocation::{self, Revocation};
use crate::roster::Roster;
use crate::shared::{OnRevoked, Shared};
use crate::store::{Asked, Executed, PresenceStore};
use crate::{Error, follow, hint, history, leaves, load, policy, repair, tail, ticket};

/// How long a shutdown tries to append what was accepted, if the database is away.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(10);
/// How long a read waits for the position that it asks for.
pub const POSITION_WAIT_MAX: Duration = Duration::from_secs(2);

/// How a node joins its realm.
pub struct RealmOptions {
    /// Where the database is: a `postgres://` URL.
    pub url: String,
    /// Jobs that may wait before the log.
    pub queue_max: usize,
    /// The policy of a new database; none: whoever serves it first may say.
    pub seed: Option<Policy>,
    /// Hears of every revoked token, some of them several times.
    pub on_revoked: OnRevoked,
}

/// How a read wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// From this node's memory where that may be believed.
    #[default]
    Usual,
    /// From the database, with every node's heartbeats.
    Strong,
}

/// A user as of now, with every lapse that is due applied.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Our number.
    pub user_no: UserNo,
    /// The outside name.
    pub user_id: &'a UserId,
    /// The state.
    pub state: &'a Presence,
    /// The last transition's.
    pub position: Position,
}

/// A node's part of one realm.
pub struct Realm {
    shared: Arc<Shared>,
    store: PresenceStore,
    policies: Policies,
    database: Database,
    analysis: PgPool,
    live_secret: [u8; 32],
    tasks: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Realm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Realm")
    }
}

impl Realm {
    /// Joins: migrates, reads everybody, and starts to append and to follow.
    pub async fn join(options: RealmOptions) -> Result<Self, Error> {
        let database = Database::new(&options.url)?;
        database.migrate().await?;
        // The appender makes a leaf that is missing; one that is only ahead can wait.
        if let Err(error) = leaves::make_ahead(&database).await {
            tracing::warn!(%error, "making leaves ahead");
        }
        let (queue, jobs) = Queue::bounded(options.queue_max);
        let pool = database.pool();
        let policy = policy::read(&pool).await?.or_else(|| options.seed.clone());
        let policy = policy.unwrap_or_default();
        let shared = Shared::new(pool.clone(), queue.clone(), policy, options.on_revoked);
        let shared = Arc::new(shared);
        fill(&database, &shared).await?;
        let appender = Appender::new(database.clone(), Arc::clone(&shared), jobs);
        let (stop, node) = (&shared.stopping, uuid::Uuid::new_v4());
        let tail = tail::run(database.clone(), Arc::clone(&shared), stop.clone());
        let tell = hint::tell(database.clone(), Arc::clone(&shared), node, stop.clone());
        let listen = hint::listen(database.clone(), Arc::clone(&shared), node, stop.clone());
        let follow = follow::run(database.clone(), Arc::clone(&shared), stop.clone());
        let tasks = vec![
            tokio::spawn(appender.run()),
            tokio::spawn(tail),
            tokio::spawn(tell),
            tokio::spawn(listen),
            tokio::spawn(follow),
        ];
        let live_secret = ticket::secret(&shared.pool).await?;
        let policies = Policies::new(pool, queue);
        let store = PresenceStore::new(Arc::clone(&shared));
        let tasks = tasks.into();
        let analysis = database.analysis_pool();
        let realm = Self { shared, store, policies, database, analysis, live_secret, tasks };
        // Shown from the start: who watches them should not wonder whether they exist.
        metrics::counter!("rollcall_append_retries_total").increment(0);
        metrics::counter!("rollcall_conflicts_total").increment(0);
        realm.tick().await?;
        if let Some(seed) = options.seed {
            realm.policies.seed(seed).await?;
        }
        realm.policies.relay().await?;
        if let Some(policy) = policy::read(&realm.shared.pool).await? {
            realm.shared.set_policy(policy);
        }
        Ok(realm)
    }

    /// Appends what was accepted, then leaves. Whoever asks afterwards is told so.
    pub async fn leave(&self) {
        self.shared.stopping.cancel();
        let give_up = self.shared.give_up.clone();
        let deadline = tokio::spawn(async move {
            tokio::time::sleep(SHUTDOWN_MAX).await;
            give_up.cancel();
        });
        let tasks = std::mem::take(&mut *self.tasks.lock().await);
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the realm");
            }
        }
        deadline.abort();
        self.analysis.close().await;
        self.shared.pool.close().await;
    }

    /// Removes what is kept only for a while: answers of batches, keys of guards, revocations.
    pub async fn forget_old(&self) -> Result<(), Error> {
        sqlx::query("select forget_old()").execute(&self.shared.pool).await?;
        Ok(())
    }

    /// The database's now, as well as this node knows it.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.shared.policy()
    }

    /// The policy, and when it changes.
    pub fn policy_changes(&self) -> tokio::sync::watch::Receiver<Arc<Policy>> {
        self.shared.policy_changes()
    }

    /// Our outages that may still matter.
    pub fn silences(&self) -> Silences {
        self.shared.silences()
    }

    /// Changes the policy; the position of the change in the log, or the head if it was so.
    pub async fn change_policy(
        &self,
        patch: &PolicyPatch,
        actor: UserNo,
    ) -> Result<Position, Error> {
        let position = self.policies.change(patch, actor).await?;
        if let Some(policy) = policy::read(&self.shared.pool).await? {
            self.shared.set_policy(policy);
        }
        Ok(position.unwrap_or_else(|| self.position()))
    }

    /// Everything at or below it is in this node's memory.
    pub fn position(&self) -> Position {
        self.shared.roster.position()
    }

    /// Whether this node may serve: it follows the log, and somebody can append to it.
    pub fn is_ready(&self) -> bool {
        let appended = self.shared.clock.newest_age().is_some_and(|age| age <= SILENCE);
        self.shared.roster.is_fresh() && appended
    }

    /// Waits, bounded, until everything at or below `position` is in memory. False: it is not.
    pub async fn reached(&self, position: Position) -> bool {
        if self.position() >= position {
            return true;
        }
        self.shared.behind.notify_one();
        let reached = self.shared.roster.reached(position);
        tokio::time::timeout(POSITION_WAIT_MAX, reached).await.is_ok()
    }

    /// Names of users, and their numbers.
    pub fn names(&self) -> &Names {
        &self.shared.names
    }

    /// The roster, for counts.
    pub fn roster(&self) -> &Roster {
        &self.shared.roster
    }

    /// Which of this node's connections has a session.
    pub fn holders(&self) -> &Arc<Holders> {
        &self.shared.holders
    }

    /// Waits, bounded, until all is in memory that other nodes have appended by now. Where the
    /// database cannot be asked, what was heard is all that is known.
    pub async fn hear_others(&self) {
        match history::head(&self.shared.pool).await {
            Ok(head) => {
                self.reached(head).await;
            }
            Err(error) => tracing::warn!(%error, "asking for the log's head"),
        }
    }

    /// Jobs waiting before the log.
    pub fn queue_depth(&self) -> usize {
        self.shared.queue.depth()
    }

    /// Connections for reads.
    pub fn pool(&self) -> &PgPool {
        &self.shared.pool
    }

    /// Connections for questions about people in numbers: few, each question bounded in time.
    pub fn analysis(&self) -> &PgPool {
        &self.analysis
    }

    /// The way to the database as its owner: for leaves.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Appends an empty batch: tells the clock, and that somebody listens.
    pub async fn tick(&self) -> Result<(), Error> {
        self.shared.queue.ask(Job::Tick).await
    }

    /// Appends an event of the system itself; the log's head after it.
    pub async fn append_system(&self, event: SystemEvent) -> Result<Position, Error> {
        self.shared.queue.ask(|reply| Job::System(event, reply)).await
    }

    /// Moves lazy deadlines on.
    pub async fn recheck(&self, sessions: Vec<SessionId>) -> Result<(), Error> {
        self.shared.queue.ask(|reply| Job::Recheck(sessions, reply)).await
    }

    /// Decides and commits one user's command.
    pub async fn execute(
        &self,
        user: UserNo,
        command: &Command,
        asked: Asked,
    ) -> Result<Executed, Error> {
        self.store.execute(user, command, asked).await
    }

    /// cqrs-es' view of the log.
    pub fn store(&self) -> &PresenceStore {
        &self.store
    }

    /// A heartbeat that leaves the recorded activity as it is, as far as this node knows; none
    /// where only the aggregate can say.
    pub fn plain_beat(
        &self,
        user: UserNo,
        session: SessionId,
        idle_ms: u32,
        taken: Instant,
    ) -> Option<Beat> {
        let policy = self.policy();
        self.shared
            .roster
            .read(user, |entry| {
                let live = entry.state.session(session)?;
                let interaction_driven = live.away_after_ms.is_some();
                let active = interaction_driven || idle_ms < policy.away_after_ms;
                let lease_ms =
                    if interaction_driven { policy.interaction_lease_ms } else { policy.lease_ms };
                let beat = Beat { session, user_no: user, idle_ms, lease_ms, active, taken };
                (active == live.active).then_some(beat)
            })
            .flatten()
    }

    /// Appends one plain heartbeat.
    pub async fn beat(&self, beat: Beat) -> Result<Beaten, Error> {
        self.shared.queue.ask(|reply| Job::Beat(beat, reply)).await
    }

    /// Appends many plain heartbeats, of different sessions.
    pub async fn beats(&self, beats: Vec<Beat>) -> Result<Vec<Beaten>, Error> {
        self.shared.queue.ask(|reply| Job::Beats(beats, reply)).await
    }

    /// Looks at users as of now. `None` for one never seen. Whoever seems to be due, by what this
    /// node knows, is asked for in the database first.
    pub async fn look<T>(
        &self,
        users: &[UserNo],
        consistency: Consistency,
        look: impl Fn(Seen<'_>) -> T,
    ) -> Result<Vec<Option<T>>, Error> {
        let now = self.now();
        let silences = self.silences();
        let believed = consistency == Consistency::Usual && self.shared.roster.is_fresh();
        let mut answers = Vec::with_capacity(users.len());
        let mut doubtful = Vec::new();
        for &user_no in users {
            let answer = believed.then(|| {
                self.shared.roster.read(user_no, |entry| {
                    let due = lapse::next_deadline(&entry.state, &silences);
                    let (user_id, state) = (&entry.user_id, &entry.state);
                    let position = entry.position;
                    due.is_none_or(|due| due > now)
                        .then(|| look(Seen { user_no, user_id, state, position }))
                })
            });
            let answer = answer.flatten().flatten();
            if answer.is_none() {
                doubtful.push(user_no);
            }
            answers.push(answer);
        }
        if doubtful.is_empty() {
            return Ok(answers);
        }
        let mut asked = self.ask_database(&doubtful, &silences, look).await?;
        for (answer, user_no) in answers.iter_mut().zip(users) {
            if answer.is_none() {
                *answer = asked.remove(user_no);
            }
        }
        Ok(answers)
    }

    /// Everybody who seems to be due by what this node knows, brought up to what the database has.
    pub async fn refresh_doubtful(&self) -> Result<(), Error> {
        let (now, silences) = (self.now(), self.silences());
        let mut doubtful = Vec::new();
        self.shared.roster.each(|user_no, entry| {
            if lapse::next_deadline(&entry.state, &silences).is_some_and(|due| due <= now) {
                doubtful.push(user_no);
            }
        });
        if !doubtful.is_empty() {
            self.ask_database(&doubtful, &silences, |_| ()).await?;
        }
        Ok(())
    }

    /// Looks at everybody in memory as of now; call [`Self::refresh_doubtful`] before.
    pub fn each(&self, mut look: impl FnMut(Seen<'_>)) {
        let (now, silences) = (self.now(), self.silences());
        self.shared.roster.each(|user_no, entry| {
            let settled = lapse::settled(&entry.state, &silences, now);
            let state = settled.as_ref().unwrap_or(&entry.state);
            let (user_id, position) = (&entry.user_id, entry.position);
            look(Seen { user_no, user_id, state, position });
        });
    }

    async fn ask_database<T>(
        &self,
        users: &[UserNo],
        silences: &Silences,
        look: impl Fn(Seen<'_>) -> T,
    ) -> Result<std::collections::HashMap<UserNo, T>, Error> {
        let loaded = load::by_number(&self.shared.pool, users).await?;
        let now = self.now();
        let mut answers = std::collections::HashMap::with_capacity(loaded.len());
        for user in loaded {
            let (user_no, position) = (user.user_no, user.position);
            if position > 0 {
                let settled = lapse::settled(&user.state, silences, now);
                let state = settled.as_ref().unwrap_or(&user.state);
                let seen = Seen { user_no, user_id: &user.user_id, state, position };
                answers.insert(user_no, look(seen));
            }
            self.shared.roster.put(user);
        }
        Ok(answers)
    }

    /// A reader of transitions, for live feeds.
    pub fn feed(&self) -> Feed {
        Feed::new(self.database.clone())
    }

    /// What resume tokens are signed with, the same on every node.
    pub fn live_secret(&self) -> &[u8; 32] {
        &self.live_secret
    }

    /// Revokes a token on every node within a second, on this one at once.
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), Error> {
        revocation::revoke(&self.shared.pool, &revocation).await?;
        self.shared.tell_revoked(vec![revocation]);
        Ok(())
    }
}

/// Fills the roster from one snapshot, with the position up to which it is complete.
async fn fill(database: &Database, shared: &Shared) -> Result<(), Error> {
    let mut connection = database.server().await?;
    let mut snapshot = connection.begin().await?;
    sqlx::query("set transaction isolation level repeatable read, read only")
        .execute(&mut *snapshot)
        .await?;
    let newest = tail::newest(&mut snapshot).await?;
    let silences = load::silences(&mut *snapshot).await?;
    shared.set_repairs_heard(repair::newest(&mut snapshot).await?);
    load::everybody(&mut snapshot, |user| {
        shared.names.remember(user.user_id.clone(), user.user_no);
        shared.roster.put(user);
    })
    .await?;
    snapshot.commit().await?;
    shared.learn_silences(silences.iter());
    shared.revocations_read(&mut connection).await?;
    if let Some((head, recorded_at)) = newest {
        shared.clock.hear(recorded_at);
        shared.roster.advance(head);
    }
    connection.close().await?;
    Ok(())
}
