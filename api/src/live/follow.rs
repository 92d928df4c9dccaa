//! What feeds the hub: transitions read from the log, in order, while somebody listens.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use domain::shown::shown;
use domain::{Audience, UserNo};
use projections::feed::{Feed, Other, PAGE_MAX, Transition};
use projections::roster::Entry;
use projections::{Error, Realm};
use tokio_util::sync::CancellationToken;

use super::change::{Around, Change};
use super::hub::Hub;
use crate::limits::MISSED_MAX;

/// The log is followed for so long after the last listener has left: long polls come and go.
const LINGER: Duration = Duration::from_mins(1);
/// Between two attempts while the log cannot be read.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Changes published under one lock of the hub, so that newcomers get in between.
const AT_ONCE: usize = 32;

/// The one task of a node that feeds its hub.
#[derive(Debug)]
pub struct Follower {
    realm: Arc<Realm>,
    hub: Arc<Hub>,
    feed: Feed,
    /// Who is invisible as of the hub's position.
    invisible: HashSet<UserNo>,
    /// Who was where following began: what lies further back is read with it.
    invisible_at_start: HashSet<UserNo>,
    /// The texts shown, by user, as last published.
    texts: HashMap<UserNo, String>,
}

impl Follower {
    /// Not yet following.
    pub fn new(realm: Arc<Realm>, hub: Arc<Hub>) -> Self {
        let feed = realm.feed();
        let (invisible, invisible_at_start) = (HashSet::new(), HashSet::new());
        Self { realm, hub, feed, invisible, invisible_at_start, texts: HashMap::new() }
    }

    /// Follows the log while somebody listens, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.hub.wanted.notified() => {}
            }
            let followed = tokio::select! {
                () = stop.cancelled() => return,
                followed = self.follow() => followed,
            };
            self.rest();
            if let Err(error) = followed {
                tracing::warn!(%error, "following the log for live feeds");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                }
                // Whoever wanted to listen still waits.
                self.hub.wanted.notify_one();
            }
        }
    }

    /// From the first listener until nobody has listened for [`LINGER`].
    async fn follow(&mut self) -> Result<(), Error> {
        self.begin().await?;
        loop {
            // An error leaves everything as it was: the same is tried again.
            if let Err(error) = self.step().await {
                tracing::warn!(%error, "reading the log for live feeds");
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            if self.hub.rest_if_idle(LINGER) {
                return Ok(());
            }
            let next = self.hub.position() + 1;
            tokio::select! {
                () = self.realm.roster().reached(next) => {}
                () = self.hub.wanted.notified() => {}
                () = tokio::time::sleep(LINGER) => {}
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Error> {
        let start = self.feed.start().await?;
        // Names and texts come from the roster.
        self.realm.roster().reached(start.head).await;
        self.invisible = start.invisible.into_iter().collect();
        self.invisible_at_start.clone_from(&self.invisible);
        self.texts.clear();
        let texts = &mut self.texts;
        self.realm.roster().each(|user, entry| {
            if let Some(text) = text_of(entry) {
                texts.insert(user, text);
            }
        });
        let mut state = self.hub.lock();
        state.position = start.head;
        state.floor = start.head;
        state.filled = start.head == 0;
        state.recent.clear();
        state.idle_since = None;
        state.note_idle();
        state.following = true;
        drop(state);
        self.hub.moved.notify_waiters();
        Ok(())
    }

    fn rest(&mut self) {
        self.feed.rest();
        self.invisible = HashSet::new();
        self.invisible_at_start = HashSet::new();
        self.texts = HashMap::new();
    }

    /// Publishes what is new, and reads what lies further back if somebody asks for it.
    async fn step(&mut self) -> Result<(), Error> {
        self.catch_up().await?;
        let wanted = {
            let state = self.hub.lock();
            state.fill_wanted && !state.filled
        };
        if wanted {
            self.fill().await?;
            self.hub.moved.notify_waiters();
        }
        Ok(())
    }

    async fn catch_up(&mut self) -> Result<(), Error> {
        loop {
            let (after, head) = (self.hub.position(), self.realm.position());
            if head <= after {
                return Ok(());
            }
            if !self.realm.roster().has_transition_above(after) {
                self.hub.publish(Vec::new(), head);
                continue;
            }
            let page = self.feed.page(after, head).await?;
            let full = page.len() >= PAGE_MAX;
            let end = page.last().filter(|_| full).map_or(head, |last| last.position);
            for part in page.chunks(AT_ONCE) {
                let up_to = part.last().map_or(after, |last| last.position);
                let changes = part.iter().filter_map(|happened| self.change(happened));
                let changes: Vec<_> = changes.collect();
                metrics::counter!(super::CHANGES).increment(changes.len() as u64);
                self.hub.publish(changes, up_to);
                tokio::task::yield_now().await;
            }
            self.hub.publish(Vec::new(), end);
        }
    }

    /// The next transition in order, as a change.
    fn change(&mut self, happened: &Transition) -> Option<Arc<Change>> {
        let user = happened.user_no;
        let was = self.invisible.contains(&user);
        let is = match happened.other {
            Other::Visibility { invisible: true } => {
                self.invisible.insert(user);
                true
            }
            Other::Visibility { invisible: false } => {
                self.invisible.remove(&user);
                false
            }
            Other::Nothing | Other::ClaimSet | Other::ClaimEnded => was,
        };
        let texts = &mut self.texts;
        let made = self.realm.roster().read(user, |entry| {
            // Where the roster is further on, a later transition of this user settles its text.
            let text_known = entry.position == happened.position;
            let told = text_known.then(|| text_of(entry)).flatten();
            let text_changed = text_known && texts.get(&user) != told.as_ref();
            if text_known || happened.from != happened.to {
                match told {
                    Some(text) => texts.insert(user, text),
                    None => texts.remove(&user),
                };
            }
            Change::of(happened, Around { invisible: [was, is], text_changed, text_known }, entry)
        });
        made.flatten().map(Arc::new)
    }

    /// Reads what lies before the start, as much as the hub may remember.
    async fn fill(&mut self) -> Result<(), Error> {
        let (start, room) = {
            let state = self.hub.lock();
            (state.floor, MISSED_MAX.saturating_sub(state.recent.len()))
        };
        let back = self.feed.before(start, room + 1).await?;
        let mut invisible = std::mem::take(&mut self.invisible_at_start);
        let changes: Vec<_> = back
            .iter()
            .take(room)
            .filter_map(|happened| self.change_before(happened, &mut invisible))
            .collect();
        let mut state = self.hub.lock();
        for change in changes {
            state.recent.push_front(change);
        }
        state.floor = back.get(room).map_or(0, |beyond| beyond.position);
        state.filled = true;
        state.fill_wanted = false;
        Ok(())
    }

    /// The transition before, as a change. `invisible`: who was after it; then, who was before it.
    fn change_before(
        &self,
        happened: &Transition,
        invisible: &mut HashSet<UserNo>,
    ) -> Option<Arc<Change>> {
        let user = happened.user_no;
        let is = invisible.contains(&user);
        let was = match happened.other {
            // It is written only where it changes something.
            Other::Visibility { invisible } => !invisible,
            Other::Nothing | Other::ClaimSet | Other::ClaimEnded => is,
        };
        if was {
            invisible.insert(user);
        } else {
            invisible.remove(&user);
        }
        let made = self.realm.roster().read(user, |entry| {
            // What the text was before nobody knows any longer: rather told twice than never.
            let text_changed = match happened.other {
                Other::ClaimSet => text_of(entry).is_some(),
                Other::ClaimEnded => true,
                Other::Nothing | Other::Visibility { .. } => false,
            };
            let around = Around { invisible: [was, is], text_changed, text_known: true };
            Change::of(happened, around, entry)
        });
        made.flatten().map(Arc::new)
    }
}

/// The text that those who see the truth are shown.
fn text_of(entry: &Entry) -> Option<String> {
    shown(&entry.state, Audience::Entitled).text
}
