//! A user's log, folded by `domain` event by event, and what must hold of each event.

use std::collections::HashMap;

use domain::{Body, Event, Position, Presence, SessionId, Source, Timestamp, UserNo};
use futures::TryStreamExt;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};

use super::finding::{Check, Finding};
use crate::Error;

const EVENTS: &str = include_str!("events.sql");
/// Findings of one user's log; more of them say nothing new.
const FINDINGS_MAX: usize = 10;

/// One transition.
#[derive(Debug, FromRow)]
struct Told {
    user_no: i64,
    position: Position,
    sequence: i64,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
    from_status: Option<String>,
    to_status: Option<String>,
    payload: Json<Value>,
}

/// What a user's transitions lead to. Heartbeats are not in it: they decide no status.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    /// The state.
    pub(crate) state: Presence,
    /// The last transition's.
    pub(crate) position: Position,
    /// When that was written down.
    pub(crate) recorded_at: Timestamp,
    /// Where each session opened.
    pub(crate) opened: HashMap<SessionId, Position>,
    /// Where each claim was set.
    pub(crate) claimed: HashMap<Source, Position>,
    /// What is wrong with the log itself.
    pub(crate) findings: Vec<Finding>,
    sequence: i64,
    own_at: Option<Timestamp>,
}

/// Folds the logs of the users above `after`, up to `to`, but those of `without`, one by one.
pub(crate) async fn fold(
    db: &mut PgConnection,
    (after, to): (i64, i64),
    without: &[i64],
    mut visit: impl FnMut(UserNo, Folded),
) -> Result<(), Error> {
    let mut rows = sqlx::query_as::<_, Told>(EVENTS).bind(after).bind(to).bind(without).fetch(db);
    let mut current: Option<(UserNo, Folded)> = None;
    while let Some(told) = rows.try_next().await? {
        let user = UserNo(told.user_no);
        if current.as_ref().is_none_or(|(other, _)| *other != user)
            && let Some((done, folded)) = current.replace((user, Folded::default()))
        {
            visit(done, folded);
        }
        if let Some((_, folded)) = current.as_mut() {
            folded.take(user, &told);
        }
    }
    if let Some((done, folded)) = current {
        visit(done, folded);
    }
    Ok(())
}

impl Folded {
    fn take(&mut self, user: UserNo, told: &Told) {
        self.check_place(user, told);
        match serde_json::from_value::<Event>(told.payload.0.clone()) {
            Ok(event) => self.apply(user, told, &event),
            Err(error) => {
                let kind = told.payload.get("type").and_then(Value::as_str).unwrap_or("event");
                self.find(
                    user,
                    told,
                    Check::EventUnreadable,
                    format!("a {kind} that can be read"),
                    error.to_string(),
                );
                self.state.sequence += 1;
            }
        }
        self.sequence = told.sequence;
        self.position = self.position.max(told.position);
        self.recorded_at = told.recorded_at;
    }

    fn check_place(&mut self, user: UserNo, told: &Told) {
        let next = self.sequence + 1;
        if told.sequence != next {
            let found = format!("sequence {}", told.sequence);
            self.find(user, told, Check::Sequence, format!("sequence {next}"), found);
        } else if told.position <= self.position {
            let expected = format!("sequence {next} above position {}", self.position);
            let found = format!("at position {}", told.position);
            self.find(user, told, Check::Sequence, expected, found);
        }
    }

    fn apply(&mut self, user: UserNo, told: &Told, event: &Event) {
        // Imported history has statuses of its own, in the order in which it happened.
        let imported = event.body.imported();
        let status = |state: &Presence| {
            if imported { domain::import::status(state) } else { state.status }
        };
        let from = status(&self.state);
        self.state.apply(event);
        let to = status(&self.state);
        match &event.body {
            Body::SessionOpened { session, imported: false, .. } => {
                self.opened.insert(*session, told.position);
            }
            Body::ClaimSet { source, .. } => {
                self.claimed.insert(source.clone(), told.position);
            }
            Body::SessionOpened { .. }
            | Body::SessionResumed { .. }
            | Body::Heartbeat { .. }
            | Body::SessionClosed { .. }
            | Body::SessionExpired { .. }
            | Body::ActivityChanged { .. }
            | Body::ClaimCleared { .. }
            | Body::ClaimExpired { .. }
            | Body::VisibilityChanged { .. }
            | Body::ActionAllowed { .. }
            | Body::ActionRefused { .. }
            | Body::Corrected { .. }
            | Body::UserErased {} => {}
        }
        let said = (told.from_status.as_deref(), told.to_status.as_deref());
        if said != (Some(from.as_str()), Some(to.as_str())) {
            let words = |status: Option<&str>| status.unwrap_or("nothing").to_owned();
            let found = format!("from {} to {}", words(said.0), words(said.1));
            self.find(user, told, Check::EventUnlikeRules, format!("from {from} to {to}"), found);
        }
        if imported {
            return;
        }
        if self.own_at.is_some_and(|before| told.occurred_at < before) {
            let before = self.own_at.unwrap_or_default();
            let found = format!("at {}", told.occurred_at.to_rfc3339());
            let expected = format!("not before {}", before.to_rfc3339());
            self.find(user, told, Check::HistoryBackwards, expected, found);
        }
        self.own_at = Some(told.occurred_at);
    }

    fn find(&mut self, user: UserNo, told: &Told, check: Check, expected: String, found: String) {
        if self.findings.len() >= FINDINGS_MAX {
            return;
        }
        let of_two = matches!(check, Check::Sequence | Check::HistoryBackwards);
        let before = if of_two { self.position } else { 0 };
        let finding = Finding::new(check, expected, found)
            .of(user)
            .at([before, told.position])
            .about(told.position)
            .since(told.recorded_at);
        self.findings.push(finding);
    }
}
