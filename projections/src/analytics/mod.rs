//! People in numbers, from the schema `analytics`: everybody as others were shown them, but where
//! a function says otherwise.
//!
//! - [`occupancy`]: how many were in each status; by hour and weekday
//! - [`time`]: how long, by day
//! - [`sessions`]: how long they last and why they end
//! - [`day`]: one person's day

pub mod day;
pub mod occupancy;
pub mod sessions;
pub mod time;

use std::time::Duration;

use domain::{Position, Timestamp};
use sqlx::PgPool;

use crate::Error;
use crate::realm::POSITION_WAIT_MAX;

/// Between two looks at a view that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// From here to before there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// From this instant on.
    pub from: Timestamp,
    /// To before this instant.
    pub to: Timestamp,
}

/// How far the views have come that an answer stands on: the slowest of them.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// All events at or below it are in.
    pub position: Position,
    /// All that was recorded by then is in; none: nothing yet.
    pub applied_to: Option<Timestamp>,
}

/// How far those views have come.
pub async fn freshness(pool: &PgPool, views: &[&str]) -> Result<Freshness, Error> {
    let (position, applied_to) = sqlx::query_as(
        "select coalesce(min(position), 0), min(applied_to) from analytics.freshness
          where view = any ($1)",
    )
    .bind(views)
    .fetch_one(pool)
    .await
    .map_err(told)?;
    Ok(Freshness { position, applied_to })
}

/// Waits, bounded, until those views have everything at or below `position`.
pub async fn reached(
    pool: &PgPool,
    views: &[&str],
    position: Option<Position>,
) -> Result<(Freshness, bool), Error> {
    let deadline = tokio::time::Instant::now() + POSITION_WAIT_MAX;
    loop {
        let fresh = freshness(pool, views).await?;
        let enough = position.is_none_or(|position| fresh.position >= position);
        if enough || tokio::time::Instant::now() >= deadline {
            return Ok((fresh, enough));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What the database says of a question: that it takes too long, or that it makes no sense, such
/// as a time zone that it does not have.
fn told(error: sqlx::Error) -> Error {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    let refused = code.is_some_and(|code| code.starts_with("22"));
    match Error::from(error) {
        error if error.is_cut_off() => Error::TooSlow,
        _ if refused => Error::Refused,
        error => error,
    }
}
