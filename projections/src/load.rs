//! Users read from the database: one statement, a user's row and its live sessions.

use domain::presence::{Imported, Veil};
use domain::{Claim, DeviceKind, Position, Presence, Session, Silence, Silences, UserId, UserNo};
use domain::{SessionId, Timestamp};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, PgExecutor, Row};

use crate::Error;

/// Silences older than the longest lease, 7 days, and all the outages that may have prolonged it.
const SILENCES_DAYS: f64 = 90.0;

/// A user as the database has it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Our number.
    pub user_no: UserNo,
    /// The outside name.
    pub user_id: UserId,
    /// The state as of `position`, with the newest heartbeats.
    pub state: Presence,
    /// The last transition's; 0 for a user never seen.
    pub position: Position,
}

/// What `current_status.state` holds beside the columns. Fields are added, never renamed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StoredState {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) claims: Vec<Claim>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) veil: Option<Veil>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) imported: Option<Box<Imported>>,
}

impl StoredState {
    /// What is stored of a state.
    pub fn of(state: &Presence) -> Self {
        Self {
            claims: state.claims.clone(),
            veil: state.veil.clone(),
            imported: state.imported.clone(),
        }
    }
}

const COLUMNS: &str = "select a.user_no, a.user_id, s.status::text, s.since, s.shown_since,
        s.sequence, s.position, s.changed_at, s.own_since, s.last_seen, s.last_activity,
        s.invisible, s.state,
        l.session_id, l.kind::text, l.opened_at, l.last_seen as session_seen, l.idle_ms,
        l.lease_ms, l.active, l.away_after_ms";
const ALL: &str = "from account a
    left join current_status s on s.user_no = a.user_no
    left join live_session l on l.user_no = a.user_no";
/// One user after the other by its key: a join would read everybody.
const SOME: &str = "from account a
    left join lateral (select * from current_status c where c.user_no = a.user_no offset 0) s
           on true
    left join lateral (select * from live_session v where v.user_no = a.user_no offset 0) l
           on true
   where a.user_no = any($1)";
/// Of more users than this everybody is read: that is quicker then.
const SOME_MAX: usize = 10_000;
const ORDER: &str = "order by a.user_no, l.opened_position";

/// The users of those numbers, by number.
pub async fn by_number(
    executor: impl PgExecutor<'_>,
    users: &[UserNo],
) -> Result<Vec<Loaded>, Error> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Vec<i64> = users.iter().map(|user| user.0).collect();
    let from = if users.len() > SOME_MAX {
        format!("{ALL} where a.user_no = any($1)")
    } else {
        SOME.to_owned()
    };
    let statement = format!("{COLUMNS} {from} {ORDER}");
    let rows = sqlx::query(&statement).bind(numbers).fetch(executor);
    let mut users = Vec::new();
    gather(rows, |user| users.push(user)).await?;
    Ok(users)
}

/// Everybody, passed on one by one: there may be millions.
pub async fn everybody(
    connection: &mut PgConnection,
    visit: impl FnMut(Loaded),
) -> Result<(), Error> {
    let statement = format!("{COLUMNS} {ALL} {ORDER}");
    gather(sqlx::query(&statement).fetch(connection), visit).await
}

/// The silences that may still matter.
pub async fn silences(executor: impl PgExecutor<'_>) -> Result<Silences, Error> {
    let rows = sqlx::query(
        "select from_at, to_at from silence where to_at > log_clock() - $1 * interval '1 day'
         order by from_at",
    )
    .bind(SILENCES_DAYS)
    .fetch_all(executor)
    .await?;
    let silence =
        |row: &PgRow| Ok(Silence { from: row.try_get("from_at")?, to: row.try_get("to_at")? });
    Ok(Silences::new(rows.iter().map(silence).collect::<Result<_, sqlx::Error>>()?))
}

/// Groups the rows, one a user and session, into users.
async fn gather(
    rows: impl futures::Stream<Item = Result<PgRow, sqlx::Error>>,
    mut visit: impl FnMut(Loaded),
) -> Result<(), Error> {
    let mut rows = std::pin::pin!(rows);
    let mut current: Option<Loaded> = None;
    while let Some(row) = rows.try_next().await? {
        let user_no = UserNo(row.try_get("user_no")?);
        if current.as_ref().is_none_or(|user| user.user_no != user_no) {
            let next = user(user_no, &row)?;
            if let Some(done) = current.replace(next) {
                visit(done);
            }
        }
        if let Some(user) = current.as_mut()
            && let Some(session) = session(&row)?
        {
            user.state.sessions.push(session);
        }
    }
    if let Some(done) = current {
        visit(done);
    }
    Ok(())
}

fn user(user_no: UserNo, row: &PgRow) -> Result<Loaded, Error> {
    let undecodable = |what: &str| Error::Undecodable(format!("{what} of user {user_no}"));
    let user_id: String = row.try_get("user_id")?;
    let user_id = user_id.parse().map_err(|_| undecodable("user_id"))?;
    let Some(position) = row.try_get::<Option<i64>, _>("position")? else {
        return Ok(Loaded { user_no, user_id, state: Presence::default(), position: 0 });
    };
    let stored: sqlx::types::Json<StoredState> = row.try_get("state")?;
    let status: &str = row.try_get("status")?;
    let state = Presence {
        sequence: row.try_get("sequence")?,
        sessions: Vec::new(),
        claims: stored.0.claims,
        invisible: row.try_get("invisible")?,
        status: status.parse().map_err(|_| undecodable("status"))?,
        since: row.try_get("since")?,
        shown_since: row.try_get("shown_since")?,
        veil: stored.0.veil,
        last_seen: row.try_get("last_seen")?,
        last_activity: row.try_get("last_activity")?,
        own_since: row.try_get("own_since")?,
        changed_at: row.try_get("changed_at")?,
        imported: stored.0.imported,
    };
    Ok(Loaded { user_no, user_id, state, position })
}

#[derive(FromRow)]
struct SessionRow {
    session_id: Option<SessionId>,
    kind: Option<String>,
    opened_at: Option<Timestamp>,
    session_seen: Option<Timestamp>,
    idle_ms: Option<i32>,
    lease_ms: Option<i32>,
    active: Option<bool>,
    away_after_ms: Option<i32>,
}

fn session(row: &PgRow) -> Result<Option<Session>, Error> {
    let row = SessionRow::from_row(row)?;
    let (Some(id), Some(opened_at), Some(last_seen)) =
        (row.session_id, row.opened_at, row.session_seen)
    else {
        return Ok(None);
    };
    let kind: DeviceKind = row
        .kind
        .unwrap_or_default()
        .parse()
        .map_err(|_| Error::Undecodable(format!("device kind of session {id}")))?;
    Ok(Some(Session {
        id,
        kind,
        opened_at,
        last_seen,
        idle_ms: row.idle_ms.unwrap_or_default().unsigned_abs(),
        lease_ms: row.lease_ms.unwrap_or_default().unsigned_abs(),
        active: row.active.unwrap_or_default(),
        away_after_ms: row.away_after_ms.map(i32::unsigned_abs),
    }))
}
