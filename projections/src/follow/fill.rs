//! The beginning of a build: everybody folded one after the other, as at the version's checkpoint.
//!
//! Page by page a span is written when it opens and again when it closes, all over the tables; a
//! user's spans together are written once, in the order of their key.

use domain::Position;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::page::{self, Step, Target};
use crate::Error;

/// Users folded at once, at most.
const USERS_MAX: i64 = 10_000;

/// Folds the next users, with about so many transitions in all, in one transaction. Whom the view
/// cannot take is found by halving, and set aside; everybody else goes on.
pub async fn step(
    connection: &mut PgConnection,
    target: Target,
    events: i64,
) -> Result<Step, Error> {
    let mut transaction = connection.begin().await?;
    let Some((position, filled_to)) = lock(&mut transaction, target).await? else {
        return Ok(Step::Taken);
    };
    let users = next(&mut transaction, filled_to, events).await?;
    let taken = fold(&mut transaction, target, position, &users).await?;
    sqlx::query(
        "update view_version set filled_to = $3, moved_at = clock_timestamp()
          where view = $1 and version = $2",
    )
    .bind(target.view.name)
    .bind(target.version)
    // Nobody is left: from here on it follows the log.
    .bind(taken.last())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Step::More)
}

/// As at which position users are folded, and up to whom they are; none where another node is at
/// it, or all are in.
async fn lock(
    connection: &mut PgConnection,
    target: Target,
) -> Result<Option<(Position, i64)>, Error> {
    let found = sqlx::query_as(
        "select position, filled_to from view_version
          where view = $1 and version = $2 and filled_to is not null for update skip locked",
    )
    .bind(target.view.name)
    .bind(target.version)
    .fetch_optional(connection)
    .await?;
    Ok(found)
}

async fn next(
    connection: &mut PgConnection,
    filled_to: i64,
    events: i64,
) -> Result<Vec<i64>, Error> {
    let users = sqlx::query_scalar(
        // Who only acts upon others has no present, and no transitions.
        "select user_no from (
            select a.user_no, coalesce(s.sequence, 0) as own,
                   sum(coalesce(s.sequence, 0)) over (order by a.user_no) as upto
              from account a left join current_status s using (user_no)
             where a.user_no > $1 order by a.user_no limit $2) n
          where upto - own < $3 order by user_no",
    )
    .bind(filled_to)
    .bind(USERS_MAX)
    .bind(events)
    .fetch_all(connection)
    .await?;
    Ok(users)
}

/// Folds as many of these users as the view takes at once; who that is.
async fn fold<'a>(
    connection: &mut PgConnection,
    target: Target,
    position: Position,
    mut users: &'a [i64],
) -> Result<&'a [i64], Error> {
    loop {
        match attempt(connection, target, position, users).await? {
            None => return Ok(users),
            Some(error) => match users {
                [user] => {
                    set_aside(connection, target, position, *user, error).await?;
                    return Ok(users);
                }
                _ => users = &users[..users.len() / 2],
            },
        }
    }
}

/// Puts users in, or leaves all as it was. Some: why the view does not take them.
async fn attempt(
    connection: &mut PgConnection,
    target: Target,
    position: Position,
    users: &[i64],
) -> Result<Option<Error>, Error> {
    let mut savepoint = connection.begin().await?;
    match page::put_in(&mut savepoint, target, position, users).await {
        Ok(()) => savepoint.commit().await?,
        Err(error) if page::is_poison(&error) => {
            savepoint.rollback().await?;
            return Ok(Some(error));
        }
        Err(error) => return Err(error),
    }
    Ok(None)
}

/// Puts a user in as before an event that the view does not take, and notes that event.
async fn set_aside(
    connection: &mut PgConnection,
    target: Target,
    position: Position,
    user: i64,
    mut error: Error,
) -> Result<(), Error> {
    let positions: Vec<Position> = sqlx::query_scalar(
        "select position from event
          where class = 'T' and user_no = $1 and position <= $2 order by position",
    )
    .bind(user)
    .bind(position)
    .fetch_all(&mut *connection)
    .await?;
    // Always: with so many events it is taken, with so many it is not.
    let (mut taken, mut refused) = (0, positions.len());
    while refused - taken > 1 {
        let middle = usize::midpoint(taken, refused);
        let mut trial = connection.begin().await?;
        match attempt(&mut trial, target, positions[middle - 1], &[user]).await? {
            None => taken = middle,
            Some(why) => (refused, error) = (middle, why),
        }
        trial.rollback().await?;
    }
    if let Some(last) = taken.checked_sub(1) {
        page::put_in(connection, target, positions[last], &[user]).await?;
    }
    let at = positions.get(taken).copied().unwrap_or(position);
    page::note_refused(connection, target, (at, Some(user)), &error).await
}
