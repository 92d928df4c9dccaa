//! A node's mailman: reads new deliveries in their order and hands them to whoever is live here.
//!
//! Polling the deliveries is the truth; a notification only wakes. Nothing is lost by a crash or to
//! a slow reader: what is not acknowledged waits in the database, and an [`Inbox`] reads it there.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use domain::{GroupName, UserNo};
use sqlx::PgPool;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Error;
use crate::db::Database;
use crate::messages::{self, CHANNEL, Draft, Due, Message, Posted};

/// Between two looks, where nothing wakes.
pub const POLL: Duration = Duration::from_millis(200);
/// Between two attempts while the database cannot be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Deliveries read by one step: with the longest texts, 8 MiB.
const PAGE: usize = 512;
/// Deliveries that a session may be behind by before it reads them from the database.
const BEHIND_MAX: usize = 32;
/// Groups that one inbox may listen to.
pub const LISTENED_MAX: usize = 1_000;
/// Deliveries that an inbox reads at once: with the longest texts, half a MiB.
const WAITING_PAGE: usize = 32;
/// Inboxes that read what waits at one time: when all come at once, the others take turns, and
/// leave the database to who asks for something else.
const READING_MAX: usize = 4;

/// One message for one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its place among all deliveries.
    pub delivery_no: i64,
    /// For whom; none: whoever is live now, and nobody need acknowledge it.
    pub receiver: Option<UserNo>,
    /// What.
    pub message: Arc<Message>,
}

/// Hands out this node's mail.
#[derive(Debug)]
pub struct Mailman {
    pool: PgPool,
    /// The last delivery handed out.
    at: AtomicI64,
    behind: Notify,
    untold: Notify,
    live: DashMap<UserNo, broadcast::Sender<Delivery>>,
    /// Who listens to a group, with how many inboxes.
    listeners: DashMap<GroupName, HashMap<UserNo, usize>>,
    /// Whose turn it is to read what waits.
    reading: Semaphore,
}

/// One session's share of its user's mail: first what waits, then what comes.
#[derive(Debug)]
pub struct Inbox {
    mailman: Arc<Mailman>,
    user: UserNo,
    /// None only while it is being dropped.
    live: Option<broadcast::Receiver<Delivery>>,
    /// Read from what waits, and not fetched yet.
    read: VecDeque<Delivery>,
    /// Whether whatever waits above `last` comes by itself.
    caught_up: bool,
    /// The last one fetched that somebody must acknowledge.
    last: i64,
    /// Listened to.
    groups: HashSet<GroupName>,
}

impl Mailman {
    /// Begins with what comes after now.
    pub async fn new(pool: PgPool) -> Result<Self, Error> {
        let at = AtomicI64::new(messages::newest(&pool).await?);
        let (behind, untold) = (Notify::new(), Notify::new());
        Ok(Self {
            pool,
            at,
            behind,
            untold,
            live: DashMap::new(),
            listeners: DashMap::new(),
            reading: Semaphore::new(READING_MAX),
        })
    }

    /// Sends, and wakes every node. Committed when it answers, where [`Posted::is_sent`].
    pub async fn post(&self, draft: &Draft) -> Result<Posted, Error> {
        let posted = messages::post(&self.pool, draft).await?;
        if posted.is_sent() {
            self.behind.notify_one();
            self.untold.notify_one();
        }
        Ok(posted)
    }

    /// That user's mail, what waits first, and every broadcast from now on.
    pub fn subscribe(self: &Arc<Self>, user: UserNo) -> Inbox {
        let sender = self.live.entry(user).or_insert_with(|| broadcast::channel(BEHIND_MAX).0);
        let live = Some(sender.subscribe());
        let mailman = Arc::clone(self);
        let (read, groups) = (VecDeque::new(), HashSet::new());
        Inbox { mailman, user, live, read, caught_up: false, last: 0, groups }
    }

    /// Users with an inbox.
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Follows the deliveries until `stop`.
    pub async fn run(self: Arc<Self>, database: Database, stop: CancellationToken) {
        tokio::join!(self.deliver(&stop), self.listen(&database, &stop), self.tell(&stop));
    }

    /// Reads and hands out one page; whether it was full.
    pub async fn step(&self) -> Result<bool, Error> {
        let after = self.at.load(Ordering::Acquire);
        let due = messages::follow(&self.pool, after, PAGE).await?;
        let Some(last) = due.last() else { return Ok(false) };
        // Most receivers are live on other nodes or nowhere: their texts are not read.
        let here = |due: &&Due| due.receiver.is_none_or(|user| self.live.contains_key(&user));
        let here: Vec<&Due> = due.iter().filter(here).collect();
        let mut wanted: Vec<Uuid> = here.iter().map(|due| due.message).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let texts = if wanted.is_empty() || self.live.is_empty() {
            Vec::new()
        } else {
            messages::texts(&self.pool, &wanted).await?
        };
        let texts: HashMap<Uuid, Arc<Message>> =
            texts.into_iter().map(|message| (message.id, Arc::new(message))).collect();
        for due in here {
            if let Some(message) = texts.get(&due.message) {
                let (delivery_no, message) = (due.delivery_no, Arc::clone(message));
                self.hand_out(Delivery { delivery_no, receiver: due.receiver, message }).await?;
            }
            // Each for itself: after an error nobody has a broadcast twice.
            self.at.store(due.delivery_no, Ordering::Release);
        }
        self.at.store(last.delivery_no, Ordering::Release);
        Ok(due.len() == PAGE)
    }

    async fn hand_out(&self, delivery: Delivery) -> Result<(), Error> {
        match (delivery.receiver, &delivery.message.group) {
            (Some(user), _) => self.hand_to(user, delivery),
            (None, Some(group)) => {
                let listeners = self.listeners.get(group);
                let users: Option<Vec<UserNo>> = listeners.map(|all| all.keys().copied().collect());
                let Some(users) = users else { return Ok(()) };
                // Stored members have one of their own.
                let id = delivery.message.id;
                let members = messages::waits_for(&self.pool, id, &users).await?;
                for user in users.into_iter().filter(|user| !members.contains(user)) {
                    self.hand_to(user, delivery.clone());
                }
            }
            (None, None) => {
                for sender in &self.live {
                    // An error says that the last session has just gone.
                    let _gone = sender.send(delivery.clone());
                }
            }
        }
        Ok(())
    }

    fn hand_to(&self, user: UserNo, delivery: Delivery) {
        if let Some(sender) = self.live.get(&user) {
            // An error says that the last session has just gone: it waits in the database.
            let _gone = sender.send(delivery);
        }
    }

    async fn deliver(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match self.step().await {
                Ok(true) => continue,
                Ok(false) => POLL,
                Err(error) => {
                    tracing::warn!(%error, "following the deliveries");
                    RETRY_PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.behind.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Wakes when another node says that there is mail.
    async fn listen(&self, database: &Database, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let heard = async {
                let mut listener = database.listener(CHANNEL).await?;
                loop {
                    listener.recv().await?;
                    self.behind.notify_one();
                }
            };
            let ended: Result<(), Error> = tokio::select! {
                () = stop.cancelled() => return,
                ended = heard => ended,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "listening for mail; polling goes on");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    /// Tells the other nodes, once for however many were sent meanwhile.
    async fn tell(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.untold.notified() => {}
            }
            if let Err(error) = messages::tell(&self.pool).await {
                tracing::warn!(%error, "telling of mail; other nodes find it by polling");
            }
        }
    }
}

impl Inbox {
    /// From now on what is sent to that group while this inbox is there, too: for those who belong
    /// to it by their token alone. Who is a stored member has it once. False: too many groups.
    pub fn listen_to(&mut self, group: &GroupName) -> bool {
        if self.groups.len() >= LISTENED_MAX && !self.groups.contains(group) {
            return false;
        }
        if self.groups.insert(group.clone()) {
            let mut listeners = self.mailman.listeners.entry(group.clone()).or_default();
            *listeners.entry(self.user).or_default() += 1;
        }
        true
    }

    /// Ends that.
    pub fn leave(&mut self, group: &GroupName) {
        if self.groups.remove(group) {
            self.unlisten(group);
        }
    }

    fn unlisten(&self, group: &GroupName) {
        self.mailman.listeners.remove_if_mut(group, |_, listeners| {
            if let Some(inboxes) = listeners.get_mut(&self.user) {
                *inboxes -= 1;
                if *inboxes == 0 {
                    listeners.remove(&self.user);
                }
            }
            listeners.is_empty()
        });
    }

    /// The next one, in the order of `delivery_no`: each once for this inbox, however slowly it is
    /// read. Only broadcasts are lost to a slow reader. Cancel safe. After an error: again.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        loop {
            if let Some(delivery) = self.read.pop_front() {
                self.last = delivery.delivery_no;
                return Ok(delivery);
            }
            if !self.caught_up {
                self.read_waiting().await?;
                continue;
            }
            let Some(live) = &mut self.live else { return Err(Error::ShuttingDown) };
            match live.recv().await {
                Ok(delivery) if delivery.receiver.is_none() => return Ok(delivery),
                Ok(delivery) if delivery.delivery_no > self.last => {
                    self.last = delivery.delivery_no;
                    return Ok(delivery);
                }
                // It was among those that waited.
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.caught_up = false,
                Err(RecvError::Closed) => return Err(Error::ShuttingDown),
            }
        }
    }

    /// Whatever is committed after this was read comes by itself: the inbox was there before.
    async fn read_waiting(&mut self) -> Result<(), Error> {
        let _turn = self.mailman.reading.acquire().await;
        let pool = &self.mailman.pool;
        let waiting = messages::pending(pool, self.user, self.last, WAITING_PAGE).await?;
        self.caught_up = waiting.len() < WAITING_PAGE;
        let receiver = Some(self.user);
        self.read.extend(waiting.into_iter().map(|(delivery_no, message)| Delivery {
            delivery_no,
            receiver,
            message: Arc::new(message),
        }));
        Ok(())
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.live = None;
        for group in std::mem::take(&mut self.groups) {
            self.unlisten(&group);
        }
        self.mailman.live.remove_if(&self.user, |_, sender| sender.receiver_count() == 0);
    }
}
