//! Signs of life against the newest stretch of the log. Further back it is not worth its time: no
//! lease lasts that long on a busy log, and what lies ahead of the log is found however long it is.

use domain::{Position, SessionId, Timestamp, UserNo};
use sqlx::{FromRow, PgConnection};

use super::finding::{Check, Finding};
use super::scope::POSITIONS_SLICE;
use crate::Error;

/// A live session that was not last heard of when its row says.
#[derive(Debug, FromRow)]
struct Misheard {
    session_id: SessionId,
    user_no: i64,
    opened_position: Position,
    last_seen: Timestamp,
    newest: Option<Timestamp>,
    by_then: Timestamp,
}

/// Live sessions of the users above `after`, up to `to`.
pub(super) async fn check(
    db: &mut PgConnection,
    (after, to): (i64, i64),
    (head, now): (Position, Timestamp),
) -> Result<Vec<Finding>, Error> {
    let from = head - POSITIONS_SLICE;
    let rows: Vec<Misheard> = sqlx::query_as(include_str!("signs.sql"))
        .bind(after)
        .bind(to)
        .bind(from)
        .bind(head)
        .bind(from <= 0)
        .bind(now)
        .fetch_all(db)
        .await?;
    let finding = |row: Misheard| {
        let expected = match row.newest {
            Some(newest) => format!("last seen at {}, by the log", newest.to_rfc3339()),
            None => format!("last seen by {}, by the log", row.by_then.to_rfc3339()),
        };
        let found = format!("last seen at {}", row.last_seen.to_rfc3339());
        Finding::new(Check::SessionUnlikeLog, expected, found)
            .of(UserNo(row.user_no))
            .at([row.opened_position])
            .about(row.session_id)
    };
    Ok(rows.into_iter().map(finding).collect())
}
