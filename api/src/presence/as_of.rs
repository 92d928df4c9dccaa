//! Statuses at a past instant, by both clocks: what happened by then, and what was known by then.

use chrono::{DateTime, Datelike, Utc};
use domain::{Position, Status, Timestamp, UserId, UserNo, lapse};
use projections::realm::{Consistency, Seen};
use projections::{history, spans};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::problem::Problem;
use crate::shapes::{Instant, Page, StatusName};
use crate::sweeper;

/// The instant that is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    at: Timestamp,
    known_at: Option<Timestamp>,
}

impl Moment {
    /// From `at` and `known_at`; none where now is meant.
    pub(crate) fn parse(
        at: Option<DateTime<Utc>>,
        known_at: Option<DateTime<Utc>>,
    ) -> Result<Option<Self>, Problem> {
        for instant in [at, known_at].into_iter().flatten() {
            check(instant)?;
        }
        match (at, known_at) {
            (Some(at), known_at) => Ok(Some(Self { at, known_at })),
            (None, Some(_)) => Err(Problem::invalid_parameter("known_at goes with at")),
            (None, None) => Ok(None),
        }
    }

    async fn known(self, app: &App) -> Result<Option<Position>, Problem> {
        match self.known_at {
            Some(known_at) => Ok(Some(spans::position_at(app.realm.pool(), known_at).await?)),
            None => Ok(None),
        }
    }
}

/// RFC 3339 has no other years, and PostgreSQL not all that chrono has.
pub(crate) fn check(instant: Timestamp) -> Result<Timestamp, Problem> {
    if (0..=9999).contains(&instant.year()) {
        Ok(instant)
    } else {
        Err(Problem::invalid_parameter("a year is 0000 to 9999"))
    }
}

/// A user's status at a past instant.
#[derive(Debug, Serialize, ToSchema)]
pub struct PastStatusBody {
    #[schema(value_type = String)]
    user_id: UserId,
    status: StatusName,
    since: Instant,
    /// Not in lists.
    #[serde(flatten)]
    more: Option<MoreBody>,
    /// The instant that was asked about.
    at: Instant,
    /// False: later than what has been recorded so far; time-outs by then are reckoned with.
    settled: bool,
}

/// What is told of one user, and not in lists.
#[derive(Debug, Serialize, ToSchema)]
pub struct MoreBody {
    /// Latest login or other transition that was a sign of life.
    last_seen: Option<Instant>,
    /// Whether others were shown `offline`.
    #[schema(required = false)]
    invisible: bool,
}

pub(crate) async fn one(
    app: &App,
    user_id: UserId,
    moment: Moment,
) -> Result<PastStatusBody, Problem> {
    let user = app.known_user(&user_id).await?;
    let known = moment.known(app).await?;
    let as_of = history::as_of(app.realm.pool(), user, moment.at, known).await?;
    let as_of = as_of.ok_or_else(Problem::user_not_found)?;
    let recorded = [(as_of.status, as_of.since)];
    let (status, since, settled) = reckon(app, moment, &[user], &recorded).await?[0];
    Ok(PastStatusBody {
        user_id,
        status: status.into(),
        since: Instant(since),
        more: Some(MoreBody {
            last_seen: as_of.last_seen.map(Instant),
            invisible: as_of.invisible,
        }),
        at: Instant(moment.at),
        settled,
    })
}

pub(crate) async fn everybody(
    app: &App,
    moment: Moment,
    limit: usize,
    cursor: Option<&str>,
) -> Result<Page<PastStatusBody>, Problem> {
    let after = cursor.unwrap_or("0").parse();
    let after = after.map_err(|_| Problem::invalid_parameter("cursor is none of ours"))?;
    let known = moment.known(app).await?;
    let (pool, at) = (app.realm.pool(), moment.at);
    let found = spans::everybody_at(pool, at, known, UserNo(after), limit as i64).await?;
    let users: Vec<UserNo> = found.iter().map(|was| was.user_no).collect();
    let recorded: Vec<_> = found.iter().map(|was| (was.status, was.since)).collect();
    let reckoned = reckon(app, moment, &users, &recorded).await?;
    let next_cursor = users.last().filter(|_| users.len() == limit).map(|last| last.0.to_string());
    let items =
        found.into_iter().zip(reckoned).map(|(was, (status, since, settled))| PastStatusBody {
            user_id: was.user_id,
            status: status.into(),
            since: Instant(since),
            more: None,
            at: Instant(at),
            settled,
        });
    Ok(Page { items: items.collect(), next_cursor })
}

/// What time had done by then may not be recorded yet: the leases of now are reckoned with. What
/// was known at a past instant is left as it was.
async fn reckon(
    app: &App,
    moment: Moment,
    users: &[UserNo],
    recorded: &[(Status, Timestamp)],
) -> Result<Vec<(Status, Timestamp, bool)>, Problem> {
    let Moment { at, known_at } = moment;
    let settled_to = known_at.unwrap_or_else(|| app.realm.now()).min(app.realm.now());
    let in_time = at <= settled_to - sweeper::BEHIND;
    if known_at.is_some() {
        return Ok(recorded.iter().map(|&(status, since)| (status, since, in_time)).collect());
    }
    let silences = app.realm.silences();
    let then = |seen: Seen<'_>| {
        let later = lapse::settled(seen.state, &silences, at);
        let state = later.as_ref().unwrap_or(seen.state);
        (state.status, state.since)
    };
    let found = app.realm.look(users, Consistency::Strong, then).await?;
    Ok(recorded
        .iter()
        .zip(found)
        .map(|(&(status, since), found)| {
            let later = |&(then, began): &(Status, Timestamp)| {
                then != status && (since..=at).contains(&began)
            };
            let reckoned = found.filter(later);
            let settled = in_time && reckoned.is_none();
            let (status, since) = reckoned.unwrap_or((status, since));
            (status, since, settled)
        })
        .collect())
}
