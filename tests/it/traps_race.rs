//! 32 tasks at once: logins, heartbeats, logouts and time-outs of the same users, on two nodes.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use domain::{Command, Outcome, Policy, SessionId, UserNo};
use futures::future;
use projections::{Asked, Error, Executed, Receipt};
use tests::{Options, World};
use uuid::Uuid;

use crate::traps_lab::{close, guard, open};

const TASKS: usize = 32;
/// Sessions of one user that tasks know of.
const KNOWN_MAX: usize = 12;

/// What was acknowledged: the event's stored name and session, by its position.
type Acknowledged = Mutex<HashMap<i64, (&'static str, Option<SessionId>)>>;

struct Race<'a> {
    world: &'a World,
    users: Vec<UserNo>,
    sessions: Vec<Mutex<Vec<SessionId>>>,
    acknowledged: Acknowledged,
    overtaken: AtomicUsize,
    until: Instant,
}

impl<'a> Race<'a> {
    async fn prepare(world: &'a World, users: usize, length: Duration) -> Self {
        let mut numbers = Vec::new();
        for number in 0..users {
            let user_id = format!("user-{number}").parse().unwrap();
            numbers.push(world.nodes[0].realm().names().number(&user_id).await.unwrap());
        }
        Self {
            world,
            sessions: numbers.iter().map(|_| Mutex::default()).collect(),
            users: numbers,
            acknowledged: Mutex::default(),
            overtaken: AtomicUsize::new(0),
            until: Instant::now() + length,
        }
    }

    /// One event that somebody was told of; never twice.
    fn acknowledge(&self, position: i64, name: &'static str, session: Option<SessionId>) {
        let before = self.acknowledged.lock().unwrap().insert(position, (name, session));
        assert_eq!(before, None, "position {position} was told twice");
    }

    async fn execute(&self, node: usize, user: UserNo, command: &Command) -> Option<Receipt> {
        let realm = self.world.nodes[node].realm();
        match realm.execute(user, command, Asked::by(Some(user))).await {
            Ok(Executed::Done(receipt)) => Some(receipt),
            Err(Error::Overtaken(_)) => {
                self.overtaken.fetch_add(1, Ordering::Relaxed);
                None
            }
            other => panic!("{other:?}"),
        }
    }

    async fn task(&self, number: usize) {
        let mut random = fastrand::Rng::with_seed(number as u64);
        let nodes = self.world.nodes.len();
        while Instant::now() < self.until {
            let (node, at) = (random.usize(0..nodes), random.usize(0..self.users.len()));
            let user = self.users[at];
            let known = random.choice(self.sessions[at].lock().unwrap().iter()).copied();
            match (random.u8(0..40), known) {
                (0, _) => self.world.advance(Duration::from_millis(1_500)).await,
                (1..6, _) => self.guard(node, user).await,
                (6..14, _) | (_, None) => self.login(node, at, user).await,
                (14..22, Some(session)) => self.logout(node, user, session).await,
                (_, Some(session)) => self.beat(node, user, session, random.bool()).await,
            }
        }
    }

    async fn guard(&self, node: usize, user: UserNo) {
        let Some(receipt) = self.execute(node, user, &guard()).await else { return };
        let Outcome::Guarded { verdict, status } = receipt.outcome else { panic!("{receipt:?}") };
        assert_eq!(verdict.is_ok(), status == domain::Status::Online);
        let name = if verdict.is_ok() { "action_allowed" } else { "action_refused" };
        self.acknowledge(receipt.first_position, name, None);
    }

    async fn login(&self, node: usize, at: usize, user: UserNo) {
        let session = Uuid::now_v7();
        let Some(receipt) = self.execute(node, user, &open(session)).await else { return };
        if receipt.outcome == (Outcome::Opened { existed: false }) {
            self.acknowledge(receipt.first_position, "session_opened", Some(session));
            let mut known = self.sessions[at].lock().unwrap();
            if known.len() >= KNOWN_MAX {
                known.remove(0);
            }
            known.push(session);
        }
    }

    async fn logout(&self, node: usize, user: UserNo, session: SessionId) {
        let Some(receipt) = self.execute(node, user, &close(session)).await else { return };
        if receipt.outcome == (Outcome::Closed { count: 1 }) {
            self.acknowledge(receipt.first_position, "session_closed", Some(session));
        }
    }

    async fn beat(&self, node: usize, user: UserNo, session: SessionId, active: bool) {
        let realm = self.world.nodes[node].realm();
        let idle_ms = if active { 0 } else { 400_000 };
        if let Some(beat) = realm.plain_beat(user, session, idle_ms, Instant::now())
            && let Some(position) = realm.beat(beat).await.unwrap()
        {
            return self.acknowledge(position, "heartbeat", Some(session));
        }
        let command = Command::Heartbeat { session, idle_ms };
        let Some(receipt) = self.execute(node, user, &command).await else { return };
        if receipt.outcome == Outcome::Done {
            self.acknowledge(receipt.first_position, "heartbeat", Some(session));
        }
    }

    /// At every moment: who is offline has no session, and who has one is not.
    async fn watch(&self) {
        while Instant::now() < self.until {
            let wrong: i64 = sqlx::query_scalar(
                "select count(*) from current_status s
                 cross join lateral (select count(*) as live from live_session l
                                      where l.user_no = s.user_no) l
                 where (s.status = 'offline') <> (l.live = 0) or s.live_sessions <> l.live",
            )
            .fetch_one(&self.world.pool)
            .await
            .unwrap();
            assert_eq!(wrong, 0, "users with two statuses at once");
        }
    }

    /// What was acknowledged stands in the log, once, and nothing else does.
    async fn check(&self) {
        let logged: Vec<(i64, String, Option<SessionId>)> = sqlx::query_as(
            "select position, type::text, session_id from event
             where type in ('session_opened', 'session_closed', 'heartbeat', 'action_allowed',
                            'action_refused')",
        )
        .fetch_all(&self.world.pool)
        .await
        .unwrap();
        let acknowledged = self.acknowledged.lock().unwrap();
        let logged: HashSet<(i64, &str, Option<SessionId>)> =
            logged.iter().map(|(at, name, session)| (*at, name.as_str(), *session)).collect();
        let told: HashSet<_> =
            acknowledged.iter().map(|(at, (name, session))| (*at, *name, *session)).collect();
        let lost: Vec<_> = told.difference(&logged).collect();
        assert!(lost.is_empty(), "acknowledged, but not in the log: {lost:?}");
        let unknown: Vec<_> = logged.difference(&told).collect();
        assert!(unknown.is_empty(), "in the log, but never acknowledged: {unknown:?}");
    }
}

async fn race(users: usize, length: Duration) {
    let policy = Policy { heartbeat_ms: 500, lease_ms: 6_000, ..Policy::default() };
    let world = World::with(Options { nodes: 2, policy, ..Options::default() }).await;
    let race = Race::prepare(&world, users, length).await;
    future::join(future::join_all((0..TASKS).map(|task| race.task(task))), race.watch()).await;
    race.check().await;
    let events: Vec<(String, i64)> =
        sqlx::query_as("select type::text, count(*) from event group by 1")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    for name in ["session_opened", "session_closed", "session_expired", "heartbeat"] {
        assert!(events.iter().any(|(event, _)| event == name), "no {name}: {events:?}");
    }
    let commands = race.acknowledged.lock().unwrap().len();
    let overtaken = race.overtaken.load(Ordering::Relaxed);
    assert!(overtaken * 10 < commands, "{overtaken} of {commands} were given up as overtaken");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_tasks_that_race_for_one_user_make_one_gapless_history() {
    race(1, Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_tasks_that_race_for_a_thousand_users_make_a_thousand_histories() {
    race(1_000, Duration::from_secs(5)).await;
}
