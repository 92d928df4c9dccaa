//! One page of the log into one version of a view: applied and noted in one transaction, and so
//! exactly once.

use domain::Position;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use crate::views::View;
use crate::{Error, tail};

/// How a version takes pages in.
#[derive(Debug, Clone, Copy)]
pub struct Pages {
    /// Transitions in one page.
    pub events: i64,
    /// Whether rows are written as the log's head knows them, not as the page does: once, where
    /// page by page they would be written when something begins and again when it ends. Nobody may
    /// be shown them before the page at the head is in.
    pub ahead: bool,
}

impl Pages {
    /// Of a live view: a tenth of a second's work, as others wait for the processor meanwhile.
    pub const LIVE: Self = Self { events: 2_000, ahead: false };
    /// Of a build: fewer, larger transactions.
    pub const BUILD: Self = Self { events: 100_000, ahead: true };
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The checkpoint moved, and there is more to read.
    More,
    /// The checkpoint is at the head.
    Idle,
    /// Another node is at it, or the version is gone.
    Taken,
}

/// A version of a view.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Which view.
    pub view: &'static View,
    /// Which of its versions.
    pub version: i32,
}

/// Takes the next page in. What the view cannot take is found by halving the page, and set aside:
/// that user waits in this view, everybody else goes on.
pub async fn step(
    connection: &mut PgConnection,
    target: Target,
    mut pages: Pages,
) -> Result<Step, Error> {
    loop {
        match page(connection, target, pages).await {
            Err(error) if is_poison(&error) && pages.events > 1 => pages.events /= 2,
            Err(error) if is_poison(&error) => {
                return set_aside(connection, target, &error).await;
            }
            done => return done,
        }
    }
}

/// One page, checkpoint included, in one transaction.
async fn page(connection: &mut PgConnection, target: Target, pages: Pages) -> Result<Step, Error> {
    let mut transaction = connection.begin().await?;
    let Some(from) = lock(&mut transaction, target).await? else { return Ok(Step::Taken) };
    let newest = tail::newest(&mut transaction).await?;
    let Some((head, recorded_at)) = newest.filter(|(head, _)| from < *head) else {
        // Now, not when the connection is used next: a swap over another one wants the checkpoint.
        transaction.rollback().await?;
        return Ok(Step::Idle);
    };
    let to = end_of_page(&mut transaction, from, head, pages.events).await?;
    apply(&mut transaction, target, from, to, if pages.ahead { head } else { to }).await?;
    sqlx::query(
        "update view_version set position = $3, moved_at = clock_timestamp(),
                applied_to = case when $4 then $5 else applied_to end
          where view = $1 and version = $2",
    )
    .bind(target.view.name)
    .bind(target.version)
    .bind(to)
    .bind(to >= head)
    .bind(recorded_at)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(if to < head { Step::More } else { Step::Idle })
}

/// The checkpoint, locked; none where another node has it or the version is gone.
async fn lock(connection: &mut PgConnection, target: Target) -> Result<Option<Position>, Error> {
    let position = sqlx::query_scalar(
        "select position from view_version where view = $1 and version = $2
            for update skip locked",
    )
    .bind(target.view.name)
    .bind(target.version)
    .fetch_optional(connection)
    .await?;
    Ok(position)
}

async fn end_of_page(
    connection: &mut PgConnection,
    from: Position,
    head: Position,
    events: i64,
) -> Result<Position, Error> {
    let end: Option<Position> = sqlx::query_scalar(
        "select position from event where class = 'T' and position > $1 and position <= $2
          order by position offset $3 limit 1",
    )
    .bind(from)
    .bind(head)
    .bind(events - 1)
    .fetch_optional(connection)
    .await?;
    Ok(end.unwrap_or(head))
}

/// Applies a page to a version of a view, by what is known at a position not before its end. The
/// caller holds the checkpoint.
pub(crate) async fn apply(
    connection: &mut PgConnection,
    Target { view, version }: Target,
    from: Position,
    to: Position,
    known: Position,
) -> Result<(), Error> {
    let waiting: Vec<i64> = sqlx::query_scalar(
        "select distinct user_no from dead_letter where view = $1 and version = $2",
    )
    .bind(view.name)
    .bind(version)
    .fetch_all(&mut *connection)
    .await?;
    let mut anew: Vec<i64> = Vec::new();
    for collides in view.collides {
        let statement = View::statement(collides, version);
        let found = sqlx::query_scalar(&statement).bind(from).bind(to);
        anew.extend::<Vec<i64>>(found.fetch_all(&mut *connection).await?);
    }
    anew.retain(|user| !waiting.contains(user));
    let apart: Vec<i64> = waiting.iter().chain(&anew).copied().collect();
    for apply in view.apply {
        let statement = View::statement(apply, version).replace("{known}", &known.to_string());
        run(connection, &statement, from, to, &apart).await?;
    }
    fold_anew(connection, Target { view, version }, from, to, &anew).await
}

/// Folds users from the whole of their log: they stand in the view as at `from`, and stand in it as
/// at `to` afterwards.
pub(crate) async fn fold_anew(
    connection: &mut PgConnection,
    Target { view, version }: Target,
    from: Position,
    to: Position,
    users: &[i64],
) -> Result<(), Error> {
    if users.is_empty() {
        return Ok(());
    }
    run(connection, &view.forget(version), from, to, users).await?;
    put_in(connection, Target { view, version }, to, users).await
}

/// Folds users, of whom nothing is in the view, from the whole of their log up to a position.
pub(super) async fn put_in(
    connection: &mut PgConnection,
    Target { view, version }: Target,
    upto: Position,
    users: &[i64],
) -> Result<(), Error> {
    run(connection, &view.anew(version), 0, upto, users).await
}

async fn run(
    connection: &mut PgConnection,
    statement: &str,
    from: Position,
    to: Position,
    users: &[i64],
) -> Result<(), Error> {
    sqlx::query(statement).bind(from).bind(to).bind(users).execute(connection).await?;
    Ok(())
}

/// Data that no retry makes better: a value that cannot be read, or that breaks a constraint.
pub(crate) fn is_poison(error: &Error) -> bool {
    let Error::Database(error) = error else { return matches!(error, Error::Undecodable(_)) };
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref().and_then(|code| code.get(..2)), Some("22" | "23"))
}

/// The page of one event that a view cannot take: noted, and passed by.
async fn set_aside(
    connection: &mut PgConnection,
    target: Target,
    error: &Error,
) -> Result<Step, Error> {
    let mut transaction = connection.begin().await?;
    let Some(from) = lock(&mut transaction, target).await? else { return Ok(Step::Taken) };
    let row = sqlx::query(
        "select position, user_no from event
          where class = 'T' and position > $1 order by position limit 1",
    )
    .bind(from)
    .fetch_one(&mut *transaction)
    .await?;
    let (position, user_no): (Position, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    note_refused(&mut transaction, target, (position, user_no), error).await?;
    sqlx::query("update view_version set position = $3 where view = $1 and version = $2")
        .bind(target.view.name)
        .bind(target.version)
        .bind(position)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(Step::More)
}

/// Notes an event that a view does not take: its user waits from there on.
pub(super) async fn note_refused(
    connection: &mut PgConnection,
    Target { view, version }: Target,
    (position, user_no): (Position, Option<i64>),
    error: &Error,
) -> Result<(), Error> {
    tracing::error!(view = view.name, version, position, ?user_no, %error, "set aside: no view");
    metrics::counter!("rollcall_dead_letters_total", "view" => view.name).increment(1);
    sqlx::query(
        "insert into dead_letter (view, version, position, user_no, sqlstate, error)
         values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
    )
    .bind(view.name)
    .bind(version)
    .bind(position)
    .bind(user_no.unwrap_or_default())
    .bind(sqlstate(error))
    .bind(error.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

pub(crate) fn sqlstate(error: &Error) -> String {
    let Error::Database(error) = error else { return String::new() };
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.map(std::borrow::Cow::into_owned).unwrap_or_default()
}
