//! A race: people change, watchers by the hundred hear of it over connections that break. Each
//! ends with every change exactly once, in order, and with the picture that a read gives.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::Client;
use crate::feed::{self, Feed, Kind, Stream, Told};

/// Longest way to a feed, when thousands look for one.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Watchers that connect at one time, until [`Race::rush`].
const CONNECTING_MAX: usize = 100;
/// Longest pause before a watcher that found no node tries again, in milliseconds.
const AGAIN_AFTER_MS_MAX: u64 = 150;

/// What a watcher has heard.
#[derive(Debug, Default)]
pub struct Picture {
    /// As of which its first snapshot was.
    pub began: i64,
    /// Where to go on from.
    pub position: i64,
    /// The positions of all changes.
    pub changes: Vec<i64>,
    /// Of those in the race; watchers themselves come and go.
    pub statuses: BTreeMap<String, String>,
}

/// As much of a change as is of interest.
#[derive(Debug, Deserialize)]
struct Change<'a> {
    position: i64,
    user_id: &'a str,
    status: &'a str,
}

impl Picture {
    fn snapshot(&mut self, told: &Value) {
        assert!(self.changes.is_empty(), "nobody is so far behind");
        self.position = told["position"].as_i64().unwrap();
        self.began = self.position;
        for item in told["items"].as_array().unwrap() {
            self.set(item["user_id"].as_str().unwrap(), item["status"].as_str().unwrap());
        }
    }

    fn change(&mut self, text: &[u8]) {
        let change: Change<'_> = serde_json::from_slice(text).unwrap();
        let (position, before) = (change.position, self.position);
        assert!(position > before, "{before}, then {}", String::from_utf8_lossy(text));
        self.position = position;
        self.changes.push(position);
        self.set(change.user_id, change.status);
    }

    fn set(&mut self, user: &str, status: &str) {
        if !runs(user) {
            return;
        }
        match self.statuses.get_mut(user) {
            Some(known) => status.clone_into(known),
            None => drop(self.statuses.insert(user.to_owned(), status.to_owned())),
        }
    }
}

/// Whether a user is one of those who are watched: `u0`, `u1`, ...
fn runs(user: &str) -> bool {
    user.starts_with('u')
}

/// What watchers and those who write share.
#[derive(Debug)]
pub struct Race {
    /// Whom they watch; none: everybody.
    users: Option<Vec<String>>,
    /// A connection is cut after at most so many events.
    cut_after_max: usize,
    /// How far each watcher is.
    heard: Vec<AtomicI64>,
    /// False: nobody connects.
    pub gate: watch::Sender<bool>,
    /// Whose turn it is to connect.
    doors: Semaphore,
    /// Connections that began, the first of each watcher included.
    pub connections: AtomicUsize,
    /// Watchers that were told that they are too slow.
    pub too_slow: AtomicUsize,
    last: AtomicI64,
    /// All is written.
    over: CancellationToken,
}

impl Race {
    /// With so many watchers.
    pub fn new(watchers: usize, users: Option<Vec<String>>, cut_after_max: usize) -> Arc<Self> {
        Arc::new(Self {
            users,
            cut_after_max,
            heard: (0..watchers).map(|_| AtomicI64::new(0)).collect(),
            gate: watch::Sender::new(true),
            doors: Semaphore::new(CONNECTING_MAX),
            connections: AtomicUsize::new(0),
            too_slow: AtomicUsize::new(0),
            last: AtomicI64::new(0),
            over: CancellationToken::new(),
        })
    }

    /// Nothing comes after `last`.
    pub fn finish(&self, last: i64) {
        self.last.store(last, Ordering::Release);
        self.over.cancel();
    }

    /// From now on nobody waits for others to connect.
    pub fn rush(&self) {
        self.doors.add_permits(self.heard.len());
    }

    /// How far the slowest watcher is; 0: somebody has heard nothing yet.
    pub fn slowest(&self) -> i64 {
        self.heard.iter().map(|at| at.load(Ordering::Relaxed)).min().unwrap_or_default()
    }

    fn reached(&self, position: i64) -> bool {
        self.over.is_cancelled() && position >= self.last.load(Ordering::Acquire)
    }

    /// One watcher: connects to any of the nodes, breaks off, goes on at any of them.
    pub async fn follow(self: Arc<Self>, number: usize, kind: Kind, nodes: Vec<Client>) -> Picture {
        let mut picture = Picture::default();
        let mut hello = Value::Null;
        let mut gate = self.gate.subscribe();
        loop {
            gate.wait_for(|open| *open).await.unwrap();
            let node = &nodes[fastrand::usize(..nodes.len())];
            let door = self.doors.acquire().await.unwrap();
            let opened = self.open(kind, node, &mut hello, picture.position);
            let opened = timeout(CONNECT_MAX, opened).await;
            drop(door);
            if let Ok(Ok(mut feed)) = opened {
                self.connections.fetch_add(1, Ordering::Relaxed);
                // However that ended: what counts is what was heard.
                drop(self.listen(number, &mut feed, &mut picture).await);
                if self.reached(picture.position) {
                    if let Feed::Socket(socket) = feed {
                        drop(socket.close().await);
                    }
                    return picture;
                }
            } else {
                let pause = Duration::from_millis(fastrand::u64(..AGAIN_AFTER_MS_MAX));
                drop(timeout(pause, self.over.cancelled()).await);
            }
        }
    }

    async fn open(
        &self,
        kind: Kind,
        node: &Client,
        hello: &mut Value,
        position: i64,
    ) -> io::Result<Feed> {
        let users = self.users.as_deref();
        let position = (position > 0).then_some(position);
        Ok(match kind {
            Kind::Stream => Feed::Stream(Stream::open(node, users, position).await?),
            Kind::Socket => Feed::Socket(feed::open_socket(node, users, hello, position).await?),
        })
    }

    /// Listens until the connection ends, or is to be cut, or the race is over.
    async fn listen(
        &self,
        number: usize,
        feed: &mut Feed,
        picture: &mut Picture,
    ) -> io::Result<()> {
        for _ in 0..fastrand::usize(1..self.cut_after_max) {
            let told = loop {
                if self.reached(picture.position) {
                    return Ok(());
                }
                tokio::select! {
                    told = feed.next() => break told?,
                    () = self.over.cancelled(), if !self.over.is_cancelled() => {}
                }
            };
            match told {
                Told::Snapshot(text) => picture.snapshot(&serde_json::from_slice(text)?),
                Told::Change(text) => picture.change(text),
                Told::Error(_) => {
                    self.too_slow.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Told::Nothing => {}
            }
            self.heard[number].store(picture.position, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Every picture has each of `logged` since it began, once, in order; and of those who were
    /// watched what a read says.
    pub fn check(&self, pictures: &[Picture], logged: &[i64], read: &Value) {
        let last = self.last.load(Ordering::Acquire);
        for picture in pictures {
            let due = logged.iter().filter(|at| **at > picture.began && **at <= last);
            let heard = picture.changes.iter().filter(|at| **at <= last);
            assert!(heard.eq(due), "since {}: {:?}", picture.began, picture.changes);
            for item in read["items"].as_array().unwrap() {
                let user = item["user_id"].as_str().unwrap();
                assert!(runs(user), "{user}");
                assert_eq!(item["status"], picture.statuses[user], "{user}");
            }
        }
    }
}

/// The positions of all changes of status; of these users alone, if they are given.
pub async fn changes(pool: &PgPool, users: Option<&[String]>) -> Vec<i64> {
    sqlx::query_scalar(
        "select position from event join account using (user_no)
          where class = 'T' and from_status <> to_status
            and ($1::text[] is null or user_id = any($1)) order by 1",
    )
    .bind(users)
    .fetch_all(pool)
    .await
    .unwrap()
}
