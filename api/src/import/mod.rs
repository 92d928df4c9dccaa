//! History from elsewhere: parsed line by line, appended user by user, repeatable.
//!
//! A line already imported is skipped, one that cannot be is reported by its number; the others are
//! not held up by it.

pub mod http;
pub mod lines;
pub mod ndjson;
pub mod pam;
pub mod status_csv;

use std::collections::{HashMap, HashSet};

use domain::command::{ImportLine, ImportedChange};
use domain::{Command, Outcome, Position, Reason, Refusal, SessionId, Timestamp, UserId, UserNo};
use futures::stream::{self, StreamExt};
use projections::{Asked, Error, Executed, Realm, history};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::presence::refusal_code;

/// Lines handled together: a user's in order, different users' at one time.
pub const CHUNK_LINES_MAX: usize = 4_096;
/// Users handled at one time.
const USERS_AT_ONCE: usize = 512;
/// Rejected lines that a report names; the rest is counted.
pub const REJECTED_NAMED_MAX: usize = 10_000;

/// One line of history, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Counted from 1.
    pub line: u64,
    /// About whom.
    pub user_id: UserId,
    /// What happened to which session, and when.
    pub what: ImportLine,
    /// What the same line says happened next.
    pub then: Option<ImportLine>,
    /// The client's own name for the device.
    pub device_id: Option<String>,
}

/// One line that is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rejected {
    /// Counted from 1.
    pub line: u64,
    /// Stable code.
    pub code: &'static str,
    /// In words.
    pub detail: String,
}

impl Rejected {
    /// A line that is not taken over, and why.
    pub fn new(line: u64, code: &'static str, detail: impl Into<String>) -> Self {
        Self { line, code, detail: detail.into() }
    }
}

/// What came of an import.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Report {
    /// Lines that stand in the log now.
    pub imported: u64,
    /// Lines that stood there already.
    pub skipped: u64,
    /// The others; at most 10,000 are named.
    pub rejected: Vec<Rejected>,
    /// Rejected lines beyond those named.
    #[serde(skip_serializing_if = "is_zero")]
    pub rejected_unnamed: u64,
    /// The last event's; the log's head, if nothing was imported.
    pub position: Position,
}

/// serde's `skip_serializing_if` passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Report {
    /// Notes a line that is not taken over.
    pub fn reject(&mut self, rejected: Rejected) {
        if self.rejected.len() < REJECTED_NAMED_MAX {
            self.rejected.push(rejected);
        } else {
            self.rejected_unnamed += 1;
        }
    }
}

/// What is known of a user's imported history.
struct Known {
    events: HashSet<(SessionId, Name, Timestamp)>,
    /// The user's count of transitions as we know it: another import may add some meanwhile.
    sequence: i64,
    /// The last line of this import.
    line: u64,
}

/// The stored name of an imported event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Name {
    Opened,
    Heartbeat,
    Closed,
    Expired,
}

/// One import, from its first line to its end.
pub struct Importer<'a> {
    realm: &'a Realm,
    actor: Option<UserNo>,
    users: HashMap<UserNo, Known>,
    /// What came of it so far.
    pub report: Report,
}

/// What came of one line.
enum Taken {
    Imported(Position),
    Skipped,
    Rejected(Rejected),
}

impl<'a> Importer<'a> {
    /// Into that realm, on behalf of that user.
    pub fn new(realm: &'a Realm, actor: Option<UserNo>) -> Self {
        let report = Report { position: realm.position(), ..Report::default() };
        Self { realm, actor, users: HashMap::new(), report }
    }

    /// Takes lines over; at most [`CHUNK_LINES_MAX`] at a time keep memory bounded.
    pub async fn take(&mut self, items: Vec<Item>) -> Result<(), Error> {
        let mut opened: HashMap<SessionId, UserId> = HashMap::new();
        let mut together = Vec::with_capacity(items.len());
        for item in items {
            if matches!(item.what.what, ImportedChange::Opened(_)) {
                let session = item.what.session;
                if opened.get(&session).is_some_and(|user_id| *user_id != item.user_id) {
                    // Two users' lines want one name: it is the earlier one's.
                    self.take_together(std::mem::take(&mut together)).await?;
                    opened.clear();
                }
                opened.insert(session, item.user_id.clone());
            }
            together.push(item);
        }
        self.take_together(together).await
    }

    async fn take_together(&mut self, items: Vec<Item>) -> Result<(), Error> {
        let mut by_user: HashMap<UserId, Vec<Item>> = HashMap::new();
        for item in items {
            by_user.entry(item.user_id.clone()).or_default().push(item);
        }
        let mut work = Vec::with_capacity(by_user.len());
        for (user_id, items) in by_user {
            let user = self.realm.names().number(&user_id).await?;
            let known = match self.users.remove(&user) {
                Some(known) => known,
                None => known(self.realm, user).await?,
            };
            work.push((user, known, items));
        }
        let (realm, actor) = (self.realm, self.actor);
        let mut done = stream::iter(work)
            .map(|(user, known, items)| take_users(realm, actor, user, known, items))
            .buffer_unordered(USERS_AT_ONCE);
        while let Some(answer) = done.next().await {
            let (user, known, taken) = answer?;
            self.users.insert(user, known);
            for taken in taken {
                match taken {
                    Taken::Imported(position) => {
                        self.report.imported += 1;
                        self.report.position = self.report.position.max(position);
                    }
                    Taken::Skipped => self.report.skipped += 1,
                    Taken::Rejected(rejected) => self.report.reject(rejected),
                }
            }
        }
        Ok(())
    }

    /// Ends the sessions that were left open, and reports.
    pub async fn finish(mut self) -> Result<Report, Error> {
        let (realm, actor) = (self.realm, self.actor);
        let mut done = stream::iter(self.users)
            .map(async |(user, known)| {
                let asked = Asked::by(actor);
                (known.line, realm.execute(user, &Command::ImportEnd, asked).await)
            })
            .buffer_unordered(USERS_AT_ONCE);
        while let Some((line, answer)) = done.next().await {
            match answer {
                Ok(Executed::Done(receipt)) => {
                    self.report.position = self.report.position.max(receipt.position);
                }
                Ok(Executed::SessionEnded | Executed::KeyKnown) => {}
                // Only where the log was damaged before; the other users' lines stand.
                Err(Error::Refused) => {
                    let detail = "the database refuses to end what this line's user has left open";
                    self.report.reject(Rejected::new(line, "refused", detail));
                }
                Err(error) => return Err(error),
            }
        }
        self.report.rejected.sort_by_key(|rejected| rejected.line);
        Ok(self.report)
    }
}

async fn known(realm: &Realm, user: UserNo) -> Result<Known, Error> {
    // Before, so that whatever comes meanwhile is asked for again.
    let sequence = sequence(realm, user);
    let stored = history::imported(realm.pool(), user).await?;
    let named = |(session, name, at): (SessionId, String, Timestamp)| {
        let name = match name.as_str() {
            "session_opened" => Name::Opened,
            "heartbeat" => Name::Heartbeat,
            "session_closed" => Name::Closed,
            "session_expired" => Name::Expired,
            _ => return None,
        };
        Some((session, name, at))
    };
    Ok(Known { events: stored.into_iter().filter_map(named).collect(), sequence, line: 0 })
}

/// The user's count of transitions, as far as this node knows.
fn sequence(realm: &Realm, user: UserNo) -> i64 {
    realm.roster().read(user, |entry| entry.state.sequence).unwrap_or_default()
}

async fn take_users(
    realm: &Realm,
    actor: Option<UserNo>,
    user: UserNo,
    mut known: Known,
    items: Vec<Item>,
) -> Result<(UserNo, Known, Vec<Taken>), Error> {
    let mut taken = Vec::with_capacity(items.len());
    for item in items {
        known.line = known.line.max(item.line);
        let mut line = take_event(realm, actor, user, &mut known, &item, &item.what).await?;
        if let (Taken::Imported(_) | Taken::Skipped, Some(then)) = (&line, &item.then) {
            // A line is there already only where all of it is.
            line = match take_event(realm, actor, user, &mut known, &item, then).await? {
                Taken::Skipped => line,
                taken @ (Taken::Imported(_) | Taken::Rejected(_)) => taken,
            };
        }
        taken.push(line);
    }
    Ok((user, known, taken))
}

async fn take_event(
    realm: &Realm,
    actor: Option<UserNo>,
    user: UserNo,
    known: &mut Known,
    item: &Item,
    what: &ImportLine,
) -> Result<Taken, Error> {
    let identity = (what.session, stored_name(what.what), what.at);
    if known.events.contains(&identity) {
        return Ok(Taken::Skipped);
    }
    let taken = take_line(realm, actor, user, item, what).await?;
    match taken {
        Taken::Imported(_) => {
            known.events.insert(identity);
            known.sequence += i64::from(identity.1 != Name::Heartbeat);
        }
        // Another import may have been quicker with this very line.
        Taken::Rejected(_) if sequence(realm, user) != known.sequence => {
            *known = Known { line: known.line, ..self::known(realm, user).await? };
            if known.events.contains(&identity) {
                return Ok(Taken::Skipped);
            }
        }
        Taken::Rejected(_) | Taken::Skipped => {}
    }
    Ok(taken)
}

async fn take_line(
    realm: &Realm,
    actor: Option<UserNo>,
    user: UserNo,
    item: &Item,
    what: &ImportLine,
) -> Result<Taken, Error> {
    let line = item.line;
    let detail = item.device_id.as_ref().map(|id| json!({ "device_id": id }));
    let asked = Asked { detail, ..Asked::by(actor) };
    let executed = match realm.execute(user, &Command::Import(what.clone()), asked).await {
        Ok(executed) => executed,
        Err(Error::Refused) => {
            let detail = "the database refuses this line";
            return Ok(Taken::Rejected(Rejected::new(line, "refused", detail)));
        }
        Err(error) => return Err(error),
    };
    Ok(match executed {
        Executed::Done(receipt) => match receipt.outcome {
            Outcome::Refused(refusal) => {
                let rejected = Rejected::new(line, refusal_code(&refusal), refusal.to_string());
                Taken::Rejected(rejected)
            }
            Outcome::Opened { .. }
            | Outcome::Done
            | Outcome::Closed { .. }
            | Outcome::Guarded { .. } => Taken::Imported(receipt.position),
        },
        Executed::SessionEnded | Executed::KeyKnown => {
            let own = history::session_owner(realm.pool(), what.session).await? == Some(user);
            Taken::Rejected(if own {
                Rejected::new(line, "session_closed", "a session of that name is over already")
            } else {
                let taken = Refusal::SessionTaken;
                Rejected::new(line, refusal_code(&taken), taken.to_string())
            })
        }
    })
}

fn stored_name(what: ImportedChange) -> Name {
    match what {
        ImportedChange::Opened(_) => Name::Opened,
        ImportedChange::Heartbeat => Name::Heartbeat,
        ImportedChange::Closed(_) => Name::Closed,
        ImportedChange::Expired(_) => Name::Expired,
    }
}

/// A line's `reason`, if it has one that we know.
pub(crate) fn reason_or(text: Option<&str>, usual: Reason) -> Result<Reason, String> {
    text.map_or(Ok(usual), |text| text.parse().map_err(|error| format!("{error}")))
}
