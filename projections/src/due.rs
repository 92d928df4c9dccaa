//! What the sweeper looks for: deadlines that have passed. Read without locks or transaction.

use std::collections::HashSet;

use domain::{SessionId, Silences, Timestamp, UserNo};
use sqlx::PgPool;

use crate::Error;

/// Most rows of one look.
pub const DUE_MAX: i64 = 5_000;

/// What is due.
#[derive(Debug, Default)]
pub struct Due {
    /// Users of whom time has changed something.
    pub users: Vec<UserNo>,
    /// Sessions whose lazy deadline lags behind their heartbeats.
    pub rechecks: Vec<SessionId>,
    /// There may be more.
    pub more: bool,
}

#[derive(sqlx::FromRow)]
struct SessionRow {
    session_id: SessionId,
    user_no: i64,
    last_seen: Timestamp,
    lease_ms: i32,
    away_after_ms: Option<i32>,
    active: bool,
}

/// Looks for deadlines not after `now`.
pub async fn due(pool: &PgPool, silences: &Silences, now: Timestamp) -> Result<Due, Error> {
    let sessions: Vec<SessionRow> = sqlx::query_as(
        "select session_id, user_no, last_seen, lease_ms, away_after_ms, active
         from live_session where check_at <= $1 order by check_at limit $2",
    )
    .bind(now)
    .bind(DUE_MAX)
    .fetch_all(pool)
    .await?;
    let claims: Vec<i64> = sqlx::query_scalar(
        "select user_no from current_status where check_at <= $1 order by check_at limit $2",
    )
    .bind(now)
    .bind(DUE_MAX)
    .fetch_all(pool)
    .await?;
    let more = sessions.len() as i64 == DUE_MAX || claims.len() as i64 == DUE_MAX;
    let mut users: HashSet<UserNo> = claims.into_iter().map(UserNo).collect();
    let mut rechecks = Vec::new();
    for session in sessions {
        let ends = |ms: i32| silences.deadline(session.last_seen, ms.unsigned_abs());
        let idle = session.away_after_ms.filter(|_| session.active).map(ends);
        let over = ends(session.lease_ms);
        if idle.unwrap_or(over).min(over) <= now {
            users.insert(UserNo(session.user_no));
        } else {
            rechecks.push(session.session_id);
        }
    }
    Ok(Due { users: users.into_iter().collect(), rechecks, more })
}
