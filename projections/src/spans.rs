//! One user's history as spans, and everybody's status at a past instant.
//!
//! From the view where it has all of that user's events, else folded from the log itself: an answer
//! is never behind what was written before it was asked for.

use domain::{Position, Reason, Status, Timestamp, UserId, UserNo};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use crate::history::parsed;
use crate::{Error, views};

/// An interval with one status.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The status.
    pub status: Status,
    /// When it began.
    pub from: Timestamp,
    /// When it ended; none: it still holds.
    pub to: Option<Timestamp>,
    /// What began it.
    pub cause: Cause,
    /// What ended it.
    pub end: Option<Cause>,
}

/// The event at an end of a span.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// The stored name of the event.
    pub name: String,
    /// Why, where a session ended.
    pub reason: Option<Reason>,
    /// Where it stands in the log.
    pub position: Position,
}

/// Which part of a history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    /// Spans that end after it; none: from the first event on.
    pub from: Option<Timestamp>,
    /// Spans that begin before it.
    pub to: Option<Timestamp>,
    /// As it was known when the log stood there; none: as it is known now.
    pub known: Option<Position>,
}

const COLUMNS: &str = "s.status::text as status, s.from_at, s.to_at, s.from_position,
        s.from_type::text as from_type, s.from_reason::text as from_reason, s.to_position,
        s.to_type::text as to_type, s.to_reason::text as to_reason";

/// What is asked for a history: $1 user, $2 and $3 the window, $4 how many, $5 known up to. The
/// benchmark asks how the view is read by it.
pub fn history_statement(from_view: bool) -> String {
    let source = if from_view { "status_span" } else { "fold_spans(array[$1], $5, false)" };
    format!(
        "select {COLUMNS} from {source} s
          where s.user_no = $1 and $5::bigint > 0
            and s.from_at >= coalesce((select max(f.from_at) from {source} f
                                        where f.user_no = $1 and f.from_at <= $2), '-infinity')
            and ($2::timestamptz is null or s.to_at is null or s.to_at > $2)
            and ($3::timestamptz is null or s.from_at < $3)
          order by s.from_at limit $4"
    )
}

/// Spans of a user, oldest first, not clipped. 404 is for the caller to say: no span at all may
/// also mean none in this window.
pub async fn history(
    pool: &PgPool,
    user: UserNo,
    window: Window,
    limit: i64,
) -> Result<Vec<Span>, Error> {
    let from_view = window.known.is_none() && view_has(pool, user).await?;
    let statement = history_statement(from_view);
    let rows = sqlx::query(&statement)
        .bind(user.0)
        .bind(window.from)
        .bind(window.to)
        .bind(limit)
        .bind(window.known.unwrap_or(Position::MAX))
        .fetch_all(pool)
        .await?;
    rows.iter().map(span).collect()
}

/// Whether the view has every event of that user, and nothing of it waits.
async fn view_has(pool: &PgPool, user: UserNo) -> Result<bool, Error> {
    let has: Option<bool> = sqlx::query_scalar(
        "select v.position >= s.position
                and not exists (select from dead_letter d where d.view = v.view
                                   and d.version = v.version and d.user_no = s.user_no)
           from view_version v, current_status s
          where v.view = $1 and v.state = 'live' and s.user_no = $2",
    )
    .bind(views::VIEWS[0].name)
    .bind(user.0)
    .fetch_optional(pool)
    .await?;
    Ok(has.unwrap_or_default())
}

fn span(row: &PgRow) -> Result<Span, Error> {
    let end = row.try_get::<Option<Position>, _>("to_position")?;
    Ok(Span {
        status: parsed(row, "status")?.unwrap_or_default(),
        from: row.try_get("from_at")?,
        to: row.try_get("to_at")?,
        cause: Cause {
            name: row.try_get("from_type")?,
            reason: parsed(row, "from_reason")?,
            position: row.try_get("from_position")?,
        },
        end: match end {
            Some(position) => Some(Cause {
                name: row.try_get("to_type")?,
                reason: parsed(row, "to_reason")?,
                position,
            }),
            None => None,
        },
    })
}

/// The last position that was written down at or before an instant: what stands at or below it was
/// known by then.
pub async fn position_at(pool: &PgPool, known_at: Timestamp) -> Result<Position, Error> {
    let position = sqlx::query_scalar("select position_at($1)").bind(known_at);
    Ok(position.fetch_one(pool).await?)
}

/// Somebody's status at a past instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Was {
    /// Our number.
    pub user_no: UserNo,
    /// The outside name.
    pub user_id: UserId,
    /// The status.
    pub status: Status,
    /// When it began.
    pub since: Timestamp,
}

/// What is asked for everybody at an instant ($1), $2 null, above a number ($3), $4 how many. What
/// the view lacks is folded, user by user, and of what it has, one row of its key is read: however
/// far it is behind, a page costs what its users cost. The benchmark asks how the view is read.
pub const EVERYBODY_AT: &str = "with v as (select version, position from view_version
                 where view = 'status_span' and state = 'live')
     select a.user_no, a.user_id, w.status, w.from_at
       from account a
       join current_status c on c.user_no = a.user_no and c.user_no > $3
      cross join lateral (
            select c.position > v.position
                   or exists (select from dead_letter d where d.view = 'status_span'
                                 and d.version = v.version and d.user_no = a.user_no) as waits
              from v) b
      cross join lateral (
            (select s.status::text, s.from_at from status_span s
              where not b.waits and s.user_no = a.user_no and s.from_at <= $1
              order by s.from_at desc limit 1)
             union all
            (select f.status::text, f.from_at
               from fold_spans(array[a.user_no], 9223372036854775807, false) f
              where b.waits and f.from_at <= $1 order by f.from_at desc limit 1)) w
      where a.user_no > $3 and $2::bigint is null
      order by a.user_no limit $4";

/// Everybody's status at an instant, in the order of our numbers, above one of them. Users whose
/// first event came later are left out.
pub async fn everybody_at(
    pool: &PgPool,
    at: Timestamp,
    known: Option<Position>,
    after: UserNo,
    limit: i64,
) -> Result<Vec<Was>, Error> {
    let statement = match known {
        None => EVERYBODY_AT,
        Some(_) => {
            "select a.user_no, a.user_id, w.status::text as status, w.from_at
               from account a
              cross join lateral (
                    select s.status, s.from_at from fold_spans(array[a.user_no], $2, false) s
                     where s.from_at <= $1 order by s.from_at desc limit 1) w
              where a.user_no > $3 order by a.user_no limit $4"
        }
    };
    let rows = sqlx::query(statement)
        .bind(at)
        .bind(known)
        .bind(after.0)
        .bind(limit)
        .fetch_all(pool)
        .await?;
    rows.iter().map(was).collect()
}

fn was(row: &PgRow) -> Result<Was, Error> {
    let user_id: &str = row.try_get("user_id")?;
    Ok(Was {
        user_no: UserNo(row.try_get("user_no")?),
        user_id: user_id.parse().map_err(|_| Error::Undecodable("user_id".to_owned()))?,
        status: parsed(row, "status")?.unwrap_or_default(),
        since: row.try_get("from_at")?,
    })
}
