//! Clients that log in, keep alive and log out, and remember what they were told.
//!
//! Each client has users of its own and waits for each answer, so it knows what must be true. What
//! was not acknowledged may have happened or not; it is asked for again, in the same words, until
//! there is an answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::api::{Api, Reply};
use super::wait::until;

/// Users of one client. The first of them never logs out.
const USERS_PER_CLIENT: usize = 6;
/// Between two requests of one client: people are not in a hurry, and others test here, too.
const THINKING: Duration = Duration::from_millis(10);
/// Before something is asked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(40);

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A login.
    Login,
    /// A heartbeat.
    Beat,
    /// A logout.
    Logout,
}

impl Kind {
    /// The type of the event that it makes.
    pub fn event(self) -> &'static str {
        match self {
            Self::Login => "session_opened",
            Self::Beat => "heartbeat",
            Self::Logout => "session_closed",
        }
    }
}

/// Something that a client was told.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// Where in the log.
    pub position: i64,
    /// Of which session.
    pub session: Uuid,
    /// What.
    pub kind: Kind,
}

/// What is known of one session.
#[derive(Debug, Clone, Default)]
pub struct Track {
    /// Its login was acknowledged.
    pub opened: bool,
    /// Its logout was asked for.
    pub leaving: bool,
    /// Heartbeats that were sent, answered or not.
    pub beats_sent: i64,
    /// Heartbeats that were acknowledged.
    pub beats_acked: i64,
}

/// Everything that the clients know.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// What they were told, in no order.
    pub acks: Vec<Ack>,
    /// Their sessions.
    pub sessions: HashMap<Uuid, Track>,
    /// How many requests had no answer, or a 503.
    pub refused: usize,
    /// Those of them with a 503.
    pub busy: usize,
    /// Answers that should not have been.
    pub wrong: Vec<String>,
}

impl Ledger {
    /// Sessions of which nobody asked to end them.
    pub fn live(&self) -> Vec<Uuid> {
        let live = self.sessions.iter().filter(|(_, track)| track.opened && !track.leaving);
        live.map(|(session, _)| *session).collect()
    }

    /// What these clients know and those.
    pub fn add(&mut self, other: Self) {
        self.acks.extend(other.acks);
        self.sessions.extend(other.sessions);
        self.refused += other.refused;
        self.busy += other.busy;
        self.wrong.extend(other.wrong);
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    ledger: Arc<Mutex<Ledger>>,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

impl Load {
    /// So many clients, each with users named after `name`.
    pub fn start(api: &Api, name: &str, clients: usize) -> Self {
        Self::with_pause(api, name, clients, THINKING)
    }

    /// The same, with another time to think.
    pub fn with_pause(api: &Api, name: &str, clients: usize, thinking: Duration) -> Self {
        let (ledger, stop) = (Arc::<Mutex<Ledger>>::default(), CancellationToken::new());
        let mut set = JoinSet::new();
        for number in 0..clients {
            let client = Client {
                api: api.clone(),
                ledger: Arc::clone(&ledger),
                stop: stop.clone(),
                name: format!("{name}-{number}"),
                thinking,
            };
            set.spawn(client.run());
        }
        Self { ledger, stop, clients: set }
    }

    /// What they know now.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// How much was acknowledged.
    pub fn acks(&self) -> usize {
        self.ledger().acks.len()
    }

    /// Waits until so much more is acknowledged: the server works.
    pub async fn progress(&self, count: usize, bound: Duration) {
        let wanted = self.acks() + count;
        until("more is acknowledged", bound, async || (self.acks() >= wanted).then_some(())).await;
    }

    /// Ends them, each after its answer, and gives what they know.
    pub async fn stop(mut self) -> Ledger {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut self.ledger())
    }
}

struct Client {
    api: Api,
    ledger: Arc<Mutex<Ledger>>,
    stop: CancellationToken,
    name: String,
    thinking: Duration,
}

impl Client {
    async fn run(self) {
        let mut sessions: [Option<Uuid>; USERS_PER_CLIENT] = [None; USERS_PER_CLIENT];
        for step in 0_usize.. {
            let (user, round) = (step % USERS_PER_CLIENT, step / USERS_PER_CLIENT);
            let kind = match sessions[user] {
                None => Kind::Login,
                // Some log out every third round, others later, the first never.
                Some(_) if user > 0 && round % (2 + user) == 0 => Kind::Logout,
                Some(_) => Kind::Beat,
            };
            let session = *sessions[user].get_or_insert_with(Uuid::now_v7);
            if !self.until_answered(kind, &format!("{}-{user}", self.name), session).await {
                return;
            }
            if kind == Kind::Logout {
                sessions[user] = None;
            }
            self.rest(self.thinking).await;
        }
    }

    async fn rest(&self, pause: Duration) {
        // People think; or the time is up.
        let _ = tokio::time::timeout(pause, self.stop.cancelled()).await;
    }

    /// Asks until there is an answer. False: the end has come.
    async fn until_answered(&self, kind: Kind, user: &str, session: Uuid) -> bool {
        loop {
            if self.stop.is_cancelled() {
                return false;
            }
            self.note(kind, session);
            let answer = match kind {
                Kind::Login => self.api.login(user, session).await,
                Kind::Beat => self.api.beat(session).await,
                Kind::Logout => self.api.logout(session).await,
            };
            if self.settle(kind, session, answer) {
                return true;
            }
            self.rest(AGAIN_AFTER).await;
        }
    }

    /// Notes what is about to be asked: from now on it may happen.
    fn note(&self, kind: Kind, session: Uuid) {
        let mut ledger = self.ledger.lock().unwrap();
        let track = ledger.sessions.entry(session).or_default();
        match kind {
            Kind::Login => {}
            Kind::Beat => track.beats_sent += 1,
            Kind::Logout => track.leaving = true,
        }
    }

    /// Notes what was answered. False: it is to be asked for again.
    fn settle(&self, kind: Kind, session: Uuid, answer: Result<Reply, reqwest::Error>) -> bool {
        let mut ledger = self.ledger.lock().unwrap();
        let Ok(reply) = answer else {
            ledger.refused += 1;
            return false;
        };
        if reply.status == 503 {
            ledger.refused += 1;
            ledger.busy += 1;
            if !reply.headers.contains_key("retry-after") {
                ledger.wrong.push(format!("503 without Retry-After: {}", reply.body));
            }
            return false;
        }
        let position = reply.body["position"].as_i64();
        let (Some(position), true) = (position, reply.status.is_success()) else {
            ledger.wrong.push(format!("{kind:?} {session}: {} {}", reply.status, reply.body));
            return true;
        };
        ledger.acks.push(Ack { position, session, kind });
        let track = ledger.sessions.entry(session).or_default();
        match kind {
            Kind::Login => track.opened = true,
            Kind::Beat => track.beats_acked += 1,
            Kind::Logout => {}
        }
        true
    }
}
