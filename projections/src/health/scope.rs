//! What one look covers, and how a round of looks goes through everything.

use domain::{Position, SessionId};
use sqlx::PgConnection;

use crate::Error;

/// Most users of one slice.
pub const USERS_SLICE: i64 = 500;
/// Most transitions of one slice's users. Who has more of them is folded by a survey only, and
/// compared with the last one here.
pub const EVENTS_SLICE: i64 = 10_000;
/// Positions of one slice of the log, heartbeats among them.
pub const POSITIONS_SLICE: i64 = 20_000;
/// Ended sessions of one slice.
pub const ENDED_SLICE: i64 = 5_000;

/// What one look covers. Bounds: above `after`, up to and including `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What is neither about a user nor a stretch of the log.
    System,
    /// Users by number: the present, their logs, their part of each view.
    Users { after: i64, to: i64 },
    /// A stretch of the log.
    Log { after: Position, to: Position },
    /// Sessions that are over, by name.
    Ended { after: SessionId, to: SessionId },
    /// Sums over everybody.
    Totals,
}

/// Where a round stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cursor {
    Users(i64),
    Log(Position),
    Ended(SessionId),
    Totals,
    Done,
}

impl Cursor {
    /// The beginnings of all rounds.
    pub(crate) const ALL: [Self; 4] =
        [Self::Users(i64::MIN), Self::Log(0), Self::Ended(SessionId::nil()), Self::Totals];

    /// What comes next; none: the round is over.
    pub(crate) async fn next(&mut self, db: &mut PgConnection) -> Result<Option<Scope>, Error> {
        match *self {
            Self::Users(after) => {
                let to = end_of_users(db, after).await?;
                *self = to.map_or(Self::Done, Self::Users);
                Ok(Some(Scope::Users { after, to: to.unwrap_or(i64::MAX) }))
            }
            Self::Log(after) => {
                let Some((after, to)) = window(db, after).await? else {
                    *self = Self::Done;
                    return Ok(None);
                };
                *self = Self::Log(to);
                Ok(Some(Scope::Log { after, to }))
            }
            Self::Ended(after) => {
                let to: Option<SessionId> = sqlx::query_scalar(
                    "select session_id from ended_session where session_id > $1
                      order by session_id offset $2 limit 1",
                )
                .bind(after)
                .bind(ENDED_SLICE - 1)
                .fetch_optional(db)
                .await?;
                *self = to.map_or(Self::Done, Self::Ended);
                Ok(Some(Scope::Ended { after, to: to.unwrap_or(SessionId::max()) }))
            }
            Self::Totals => {
                *self = Self::Done;
                Ok(Some(Scope::Totals))
            }
            Self::Done => Ok(None),
        }
    }
}

/// The last user of a slice; none where it may run to the end.
async fn end_of_users(db: &mut PgConnection, after: i64) -> Result<Option<i64>, Error> {
    // Rows of the present without an account are looked at as well.
    let users: Vec<(i64, i64)> = sqlx::query_as(
        "select user_no, max(transitions)
           from ((select user_no, 0::bigint as transitions from account
                   where user_no > $1 order by user_no limit $2)
                 union all
                 (select user_no, sequence from current_status
                   where user_no > $1 order by user_no limit $2)) u
          group by user_no order by user_no limit $2",
    )
    .bind(after)
    .bind(USERS_SLICE)
    .fetch_all(db)
    .await?;
    let mut events = 0;
    let mut last = None;
    for (user, transitions) in &users {
        events += if *transitions > EVENTS_SLICE { 0 } else { *transitions };
        if events > EVENTS_SLICE && last.is_some() {
            return Ok(last);
        }
        last = Some(*user);
    }
    Ok(if users.len() as i64 == USERS_SLICE { last } else { None })
}

/// The next stretch of the log; a stretch without events is passed over.
async fn window(
    db: &mut PgConnection,
    after: Position,
) -> Result<Option<(Position, Position)>, Error> {
    let (head, next, empty): (Position, Option<Position>, bool) = sqlx::query_as(
        "select coalesce((select head from batch order by batch_no desc limit 1), 0),
                (select min(position) from event where class = 'T' and position > $1),
                not exists (select from event where position > $1 and position <= $1 + $2)",
    )
    .bind(after)
    .bind(POSITIONS_SLICE)
    .fetch_one(db)
    .await?;
    if after >= head {
        return Ok(None);
    }
    // Holes are at most some batches wide, but for the one that a new time-line leaves.
    let after = if empty { next.map_or(head - 1, |next| next - 1).max(after) } else { after };
    Ok(Some((after, (after + POSITIONS_SLICE).min(head.max(after + 1)))))
}
