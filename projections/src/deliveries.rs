//! What webhook endpoints are told: read from the log, claimed by one node at a time, settled.
//!
//! In order per user: nothing is claimed while something earlier of the same user is pending at the
//! same endpoint. At least once: a lease that is over is claimed again, under the same name.

use std::time::Duration;

use domain::webhook::Filter;
use domain::{Position, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::follow::page::Step;
use crate::{Error, tail};

/// Transitions looked through at once.
const PAGE_EVENTS: i64 = 2_000;
/// Deliveries that may be pending for one endpoint, save one page; the rest waits in the log.
pub const PENDING_MAX: i64 = 10_000;
/// How long a node may be at one delivery: longer than any attempt takes.
pub const LEASE: Duration = Duration::from_secs(30);
/// How long what was delivered is still listed.
pub const DELIVERED_KEPT_FOR: Duration = Duration::from_hours(24);
/// How long what could not be delivered can still be replayed.
pub const DEAD_KEPT_FOR: Duration = Duration::from_hours(30 * 24);
/// The error of an attempt that no connection came of: it says nothing of what was to be told.
pub const UNREACHABLE: &str = "cannot be connected to";
/// Deliveries forgotten by one statement.
const FORGOTTEN_AT_ONCE: i64 = 5_000;

/// What became of a delivery so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// To be told, now or again.
    Pending,
    /// Told.
    Delivered,
    /// Given up after the last attempt.
    Dead,
}

impl State {
    /// The stored and shown name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl std::str::FromStr for State {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Pending, Self::Delivered, Self::Dead]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Error::Undecodable("state of a delivery".to_owned()))
    }
}

/// One delivery's name: the same at every attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// To which endpoint.
    pub webhook: Uuid,
    /// Of which event.
    pub position: Position,
    /// By which rule; empty: by none.
    pub rule: String,
}

/// A delivery that this node is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its name.
    pub key: Key,
    /// Which attempt this is, from 1.
    pub attempt: i32,
}

/// A delivery as it is listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its name.
    pub key: Key,
    /// The event's stored name; none, where the log no longer has it.
    pub event: Option<String>,
    /// What became of it.
    pub state: State,
    /// Attempts so far.
    pub attempts: i32,
    /// Not before, while pending.
    pub next_at: Timestamp,
    /// The latest answer's status.
    pub http_status: Option<i32>,
    /// Why the latest attempt failed.
    pub error: Option<String>,
    /// When it was delivered or given up.
    pub settled_at: Option<Timestamp>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// The answer's status, where there was one.
    pub http_status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// What follows.
    pub then: Then,
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is delivered.
    Delivered,
    /// Another attempt after this.
    Retry(Duration),
    /// It is given up; the user's later ones go on.
    Dead,
}

/// Looks through the next page of the log for one endpoint, checkpoint included, in one
/// transaction. [`Step::Taken`]: another node is at it.
pub async fn expand(pool: &PgPool, webhook: Uuid, filter: &Filter) -> Result<Step, Error> {
    let mut transaction = pool.begin().await?;
    let from: Option<Position> = sqlx::query_scalar(
        "select position from webhook_cursor where webhook_id = $1 for update skip locked",
    )
    .bind(webhook)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(from) = from else { return Ok(Step::Taken) };
    let Some((head, _)) = tail::newest(&mut transaction).await? else { return Ok(Step::Idle) };
    let pending: i64 = sqlx::query_scalar(
        "select count(*) from (select from webhook_delivery
            where webhook_id = $1 and state = 'pending' limit $2) pending",
    )
    .bind(webhook)
    .bind(PENDING_MAX)
    .fetch_one(&mut *transaction)
    .await?;
    if from >= head || pending >= PENDING_MAX {
        return Ok(Step::Idle);
    }
    let to: Option<Position> = sqlx::query_scalar(
        "select position from event where class = 'T' and position > $1 and position <= $2
          order by position offset $3 limit 1",
    )
    .bind(from)
    .bind(head)
    .bind(PAGE_EVENTS - 1)
    .fetch_optional(&mut *transaction)
    .await?;
    let to = to.unwrap_or(head);
    let names = |statuses: &[domain::Status]| -> Vec<&'static str> {
        statuses.iter().map(|status| status.as_str()).collect()
    };
    sqlx::query(include_str!("deliveries_expand.sql"))
        .bind(webhook)
        .bind(from)
        .bind(to)
        .bind(&filter.event_types)
        .bind(names(&filter.from_status))
        .bind(names(&filter.to_status))
        .bind(filter.users.iter().map(|user| user.0).collect::<Vec<_>>())
        .bind(filter.groups.iter().map(domain::GroupName::as_str).collect::<Vec<_>>())
        .execute(&mut *transaction)
        .await?;
    sqlx::query("update webhook_cursor set position = $2 where webhook_id = $1")
        .bind(webhook)
        .bind(to)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(if to < head { Step::More } else { Step::Idle })
}

/// Takes up to `limit` deliveries of an endpoint that are due, none behind an earlier one of its
/// user. They are this node's until [`LEASE`] is over.
pub async fn claim(
    pool: &PgPool,
    webhook: Uuid,
    node: Uuid,
    limit: usize,
) -> Result<Vec<Claimed>, Error> {
    let rows = sqlx::query(
        "with free as (
            select d.webhook_id, d.position, d.rule from webhook_delivery d
             where d.webhook_id = $1 and d.state = 'pending' and d.next_at <= log_clock()
               and (d.leased_until is null or d.leased_until <= clock_timestamp())
               and not exists (select from webhook_delivery e
                    where e.webhook_id = $1 and e.state = 'pending' and e.user_no = d.user_no
                      and (e.position, e.rule) < (d.position, d.rule))
             order by d.position, d.rule limit $3 for update skip locked)
         update webhook_delivery d
            set attempts = d.attempts + 1, leased_by = $2,
                leased_until = clock_timestamp() + $4 * interval '1 second'
           from free
          where d.webhook_id = free.webhook_id and d.position = free.position
            and d.rule = free.rule
         returning d.position, d.rule, d.attempts",
    )
    .bind(webhook)
    .bind(node)
    .bind(limit as i64)
    .bind(LEASE.as_secs() as i64)
    .fetch_all(pool)
    .await?;
    let claimed = |row: PgRow| {
        let (position, rule) = (row.try_get("position")?, row.try_get("rule")?);
        let attempt = row.try_get("attempts")?;
        Ok(Claimed { key: Key { webhook, position, rule }, attempt })
    };
    rows.into_iter().map(claimed).collect()
}

/// Notes how an attempt ended, unless another node has taken over since.
pub async fn settle(
    pool: &PgPool,
    claimed: &Claimed,
    node: Uuid,
    attempted: &Attempted,
) -> Result<(), Error> {
    let (state, wait) = match attempted.then {
        Then::Delivered => (State::Delivered, Duration::ZERO),
        Then::Retry(wait) => (State::Pending, wait),
        Then::Dead => (State::Dead, Duration::ZERO),
    };
    sqlx::query(
        "update webhook_delivery
            set state = $6, leased_by = null, leased_until = null, http_status = $7, error = $8,
                next_at = log_clock() + $9 * interval '1 millisecond',
                settled_at = case when $6 <> 'pending' then log_clock() end
          where webhook_id = $1 and position = $2 and rule = $3 and state = 'pending'
            and leased_by = $4 and attempts = $5",
    )
    .bind(claimed.key.webhook)
    .bind(claimed.key.position)
    .bind(&claimed.key.rule)
    .bind(node)
    .bind(claimed.attempt)
    .bind(state.as_str())
    .bind(attempted.http_status.map(i32::from))
    .bind(attempted.error.as_deref())
    .bind(wait.as_millis() as i64)
    .execute(pool)
    .await?;
    Ok(())
}

/// The endpoint is back: whatever waits only because it could not be connected to is due now, and
/// its waits begin anew, since what made it fail is over.
pub async fn wake(pool: &PgPool, webhook: Uuid) -> Result<(), Error> {
    sqlx::query(
        "update webhook_delivery set next_at = log_clock(), attempts = 0
          where webhook_id = $1 and state = 'pending' and error = $2 and next_at > log_clock()
            and leased_by is null",
    )
    .bind(webhook)
    .bind(UNREACHABLE)
    .execute(pool)
    .await?;
    Ok(())
}

/// Gives back what this node was at: it is stopping. Its attempts do not count.
pub async fn release(pool: &PgPool, node: Uuid) -> Result<(), Error> {
    sqlx::query(
        "update webhook_delivery
            set leased_by = null, leased_until = null, attempts = greatest(attempts - 1, 0)
          where leased_by = $1 and state = 'pending'",
    )
    .bind(node)
    .execute(pool)
    .await?;
    Ok(())
}

/// Deliveries of an endpoint, newest first, before a place in the list.
pub async fn list(
    pool: &PgPool,
    webhook: Uuid,
    state: Option<State>,
    before: Option<&(Position, String)>,
    limit: usize,
) -> Result<Vec<Listed>, Error> {
    let (position, rule) = before.map_or((Position::MAX, ""), |(at, rule)| (*at, rule));
    let rows = sqlx::query(
        "select d.position, d.rule, e.type::text as event, d.state, d.attempts, d.next_at,
                d.http_status, d.error, d.settled_at
           from webhook_delivery d
           left join event e on e.class = 'T' and e.position = d.position
          where d.webhook_id = $1 and ($2::text is null or d.state = $2)
            and (d.position, d.rule) < ($3, $4)
          order by d.position desc, d.rule desc limit $5",
    )
    .bind(webhook)
    .bind(state.map(State::as_str))
    .bind(position)
    .bind(rule)
    .bind(limit as i64)
    .fetch_all(pool)
    .await?;
    let listed = |row: PgRow| {
        let (position, rule) = (row.try_get("position")?, row.try_get("rule")?);
        Ok(Listed {
            key: Key { webhook, position, rule },
            event: row.try_get("event")?,
            state: row.try_get::<&str, _>("state")?.parse()?,
            attempts: row.try_get("attempts")?,
            next_at: row.try_get("next_at")?,
            http_status: row.try_get("http_status")?,
            error: row.try_get("error")?,
            settled_at: row.try_get("settled_at")?,
        })
    };
    rows.into_iter().map(listed).collect()
}

/// How many of an endpoint's deliveries there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Counts {
    /// To be told.
    pub pending: i64,
    /// Given up.
    pub dead: i64,
}

/// Counts what is not delivered.
pub async fn counts(pool: &PgPool, webhook: Uuid) -> Result<Counts, Error> {
    let counts = sqlx::query_as(
        "select count(*) filter (where state = 'pending') as pending,
                count(*) filter (where state = 'dead') as dead
           from webhook_delivery where webhook_id = $1 and state <> 'delivered'",
    )
    .bind(webhook)
    .fetch_one(pool)
    .await?;
    Ok(counts)
}

/// Tells what was given up once more; how many that are.
pub async fn replay_dead(pool: &PgPool, webhook: Uuid) -> Result<u64, Error> {
    let done = sqlx::query(
        "update webhook_delivery
            set state = 'pending', attempts = 0, next_at = log_clock(), settled_at = null
          where webhook_id = $1 and state = 'dead'",
    )
    .bind(webhook)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// Sets an endpoint's checkpoint back: everything above `after` is told again, in order. Beyond the
/// checkpoint nothing is skipped. What rules wanted told stays as it is. Where it stands now.
pub async fn replay_after(
    pool: &PgPool,
    webhook: Uuid,
    after: Position,
) -> Result<Position, Error> {
    let query = sqlx::query_scalar("select replay_webhook($1, $2)").bind(webhook).bind(after);
    let position: Option<Position> = query.fetch_one(pool).await?;
    position.ok_or_else(|| domain::webhook::WebhookRefusal::NotFound.into())
}

/// Forgets what was settled long ago, a bounded number at a time.
pub async fn forget_old(pool: &PgPool) -> Result<(), Error> {
    loop {
        let done = sqlx::query(
            "delete from webhook_delivery where (webhook_id, position, rule) in (
                select webhook_id, position, rule from webhook_delivery
                 where state <> 'pending'
                   and settled_at < log_clock() - case state when 'dead'
                        then $2 * interval '1 second' else $1 * interval '1 second' end
                 order by settled_at limit $3)",
        )
        .bind(DELIVERED_KEPT_FOR.as_secs() as i64)
        .bind(DEAD_KEPT_FOR.as_secs() as i64)
        .bind(FORGOTTEN_AT_ONCE)
        .execute(pool)
        .await?;
        if (done.rows_affected() as i64) < FORGOTTEN_AT_ONCE {
            return Ok(());
        }
    }
}
