//! One person's day.

use domain::{DeviceKind, Reason, SessionId, Status, Timestamp, UserNo};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::{Window, told};
use crate::Error;
use crate::history::parsed;
use crate::spans::Cause;

/// Most spans, and most sessions, of one day.
pub const DAY_ITEMS_MAX: i64 = 10_000;

/// Which of the two stories is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// What was.
    Truth,
    /// What others were shown.
    Shown,
}

/// A stretch of the day, clipped to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// The status.
    pub status: Status,
    /// From when.
    pub from: Timestamp,
    /// To when; none: it still holds.
    pub to: Option<Timestamp>,
    /// What began it, of the truth: what others are shown, they are not told why.
    pub cause: Option<Cause>,
}

/// A session that was open at some time of the day; not clipped.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    /// Its name.
    pub session_id: SessionId,
    /// What it runs on.
    pub kind: DeviceKind,
    /// The login.
    pub opened_at: Timestamp,
    /// The end; none: still open.
    pub ended_at: Option<Timestamp>,
    /// Why it ended.
    pub reason: Option<Reason>,
}

/// The statuses of a user in a window, oldest first.
pub async fn stretches(
    pool: &PgPool,
    user: UserNo,
    window: Window,
    story: Story,
) -> Result<Vec<Stretch>, Error> {
    let source = match story {
        Story::Truth => "status_span",
        Story::Shown => {
            "(select *, null as from_type, null as from_reason, null::bigint as from_position
                from shown_span)"
        }
    };
    let statement = format!(
        "select s.status::text as status, greatest(s.from_at, $2) as from_at,
                case when s.to_at is null and $3 > reader_now() then null
                     else least(s.to_at, $3) end as to_at,
                s.from_type::text as cause, s.from_reason::text as reason, s.from_position
           from {source} s
          where s.user_no = $1 and s.from_at < $3 and (s.to_at is null or s.to_at > $2)
          order by s.from_at limit $4"
    );
    let query = sqlx::query(&statement).bind(user.0).bind(window.from).bind(window.to);
    let rows = query.bind(DAY_ITEMS_MAX).fetch_all(pool).await.map_err(told)?;
    let stretch = |row: &PgRow| {
        Ok(Stretch {
            status: parsed(row, "status")?.unwrap_or_default(),
            from: row.try_get("from_at")?,
            to: row.try_get("to_at")?,
            cause: cause(row)?,
        })
    };
    rows.iter().map(stretch).collect()
}

fn cause(row: &PgRow) -> Result<Option<Cause>, Error> {
    let Some(name) = row.try_get("cause")? else { return Ok(None) };
    let position = row.try_get("from_position")?;
    Ok(Some(Cause { name, reason: parsed(row, "reason")?, position }))
}

/// The sessions of a user that were open at some time in a window, oldest first.
pub async fn lanes(
    pool: &PgPool,
    user: UserNo,
    window: Window,
    story: Story,
) -> Result<Vec<Lane>, Error> {
    let rows = sqlx::query(
        "select s.session_id, s.kind::text as kind, s.opened_at, s.ended_at,
                s.reason::text as reason
           from session_span s
          where s.user_no = $1 and s.opened_at < $3 and (s.ended_at is null or s.ended_at > $2)
            and ($4 or not s.invisible)
          order by s.opened_at, s.opened_position limit $5",
    )
    .bind(user.0)
    .bind(window.from)
    .bind(window.to)
    .bind(story == Story::Truth)
    .bind(DAY_ITEMS_MAX)
    .fetch_all(pool)
    .await
    .map_err(told)?;
    let lane = |row: &PgRow| {
        Ok(Lane {
            session_id: row.try_get("session_id")?,
            kind: parsed(row, "kind")?.unwrap_or_default(),
            opened_at: row.try_get("opened_at")?,
            ended_at: row.try_get("ended_at")?,
            reason: parsed(row, "reason")?,
        })
    };
    rows.iter().map(lane).collect()
}
