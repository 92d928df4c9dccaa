//! Which rule is due for whom: read from the log page by page, with a checkpoint, by any node.

use std::time::Duration;

use domain::automation::Rule;
use domain::{Position, Status, Timestamp, UserNo};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::deliveries::{self, PENDING_MAX};
use crate::follow::page::Step;
use crate::{Error, policy, tail};

/// Transitions looked through at once.
const PAGE_EVENTS: i64 = 5_000;
/// How long a node may be at what it has claimed: longer than it takes to give a command up.
pub const LEASE: Duration = Duration::from_secs(30);
/// Acted upon in one step.
pub const DUE_MAX: i64 = 256;

/// A status that has lasted as long as a rule asks for.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Due {
    /// Which rule, by name.
    pub rule: String,
    user_no: i64,
    /// The event with which the status began.
    pub position: Position,
    /// When it began.
    pub since: Timestamp,
}

impl Due {
    /// Whose status.
    pub fn user(&self) -> UserNo {
        UserNo(self.user_no)
    }
}

/// Takes the next page of the log in, and the rules where they have changed. One transaction.
pub async fn follow(pool: &PgPool) -> Result<Step, Error> {
    let mut transaction = pool.begin().await?;
    let locked: Option<(Position, Value)> =
        sqlx::query_as("select position, rules from rule_cursor for update skip locked")
            .fetch_optional(&mut *transaction)
            .await?;
    let Some((from, known)) = locked else { return Ok(Step::Taken) };
    let known: Vec<Rule> =
        serde_json::from_value(known).map_err(|error| Error::Undecodable(error.to_string()))?;
    // Not the node's own memory of it: two nodes must not take turns at different ones.
    let rules = policy::read(&mut *transaction).await?.map(|policy| policy.rules);
    let rules = rules.unwrap_or_default();
    let Some((head, _)) = tail::newest(&mut transaction).await? else { return Ok(Step::Idle) };
    if rules == known && (rules.is_empty() || from >= head) {
        return Ok(Step::Idle);
    }
    // Where there was no rule, nothing was read, and nothing is due.
    let mut to = head;
    if !known.is_empty() && from < head {
        to = end_of_page(&mut transaction, from, head).await?;
        apply(&mut transaction, &known, from, to).await?;
    }
    let rules = if to == head { rules } else { known.clone() };
    if rules != known {
        change(&mut transaction, &known, &rules, head).await?;
    }
    let stored = serde_json::to_value(&rules).map_err(|e| Error::Undecodable(e.to_string()))?;
    sqlx::query("update rule_cursor set position = $1, rules = $2")
        .bind(to)
        .bind(stored)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(if to < head { Step::More } else { Step::Idle })
}

async fn end_of_page(
    connection: &mut PgConnection,
    from: Position,
    head: Position,
) -> Result<Position, Error> {
    let end: Option<Position> = sqlx::query_scalar(
        "select position from event where class = 'T' and position > $1 and position <= $2
          order by position offset $3 limit 1",
    )
    .bind(from)
    .bind(head)
    .bind(PAGE_EVENTS - 1)
    .fetch_optional(connection)
    .await?;
    Ok(end.unwrap_or(head))
}

/// Rules as columns.
fn columns<'a>(
    rules: impl Iterator<Item = &'a Rule>,
) -> (Vec<String>, Vec<&'static str>, Vec<i64>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for rule in rules {
        columns.0.push(rule.name.clone());
        columns.1.push(rule.when.status.as_str());
        columns.2.push(rule.when.for_ms as i64);
    }
    columns
}

/// Whose status has changed: what waited for the former one no longer does. Of each user the last
/// change alone counts; a status that was over before it was read calls for nothing.
async fn apply(
    connection: &mut PgConnection,
    rules: &[Rule],
    from: Position,
    to: Position,
) -> Result<(), Error> {
    const CHANGED: &str = "with changed as (
        select distinct on (user_no) user_no, position, occurred_at, to_status::text as status
          from event
         where class = 'T' and user_no is not null and position > $1 and position <= $2
           and from_status <> to_status and coalesce(data ? 'imported', false) is false
         order by user_no, position desc)";
    let over =
        format!("{CHANGED} delete from rule_due d using changed c where d.user_no = c.user_no");
    sqlx::query(&over).bind(from).bind(to).execute(&mut *connection).await?;
    let (names, statuses, for_ms) = columns(rules.iter());
    let begun = format!(
        "{CHANGED} insert into rule_due (rule, user_no, position, since, due_at)
         select r.name, c.user_no, c.position, c.occurred_at,
                c.occurred_at + r.for_ms * interval '1 millisecond'
           from changed c
           join unnest($3::text[], $4::text[], $5::bigint[]) r (name, status, for_ms)
             on r.status = c.status"
    );
    let query = sqlx::query(&begun).bind(from).bind(to).bind(names).bind(statuses).bind(for_ms);
    query.execute(connection).await?;
    Ok(())
}

/// Other rules from here on. A new one holds for whatever lasts already, unless its time was over
/// before: then nobody expected it to act.
async fn change(
    connection: &mut PgConnection,
    known: &[Rule],
    rules: &[Rule],
    head: Position,
) -> Result<(), Error> {
    let kept: Vec<&str> =
        rules.iter().filter(|rule| known.contains(rule)).map(|rule| rule.name.as_str()).collect();
    sqlx::query("delete from rule_due where rule <> all($1)")
        .bind(&kept)
        .execute(&mut *connection)
        .await?;
    let (names, statuses, for_ms) = columns(rules.iter().filter(|rule| !known.contains(rule)));
    sqlx::query(
        "insert into rule_due (rule, user_no, position, since, due_at)
         select r.name, c.user_no, b.position, c.since,
                c.since + r.for_ms * interval '1 millisecond'
           from unnest($1::text[], $2::text[], $3::bigint[]) r (name, status, for_ms)
           join current_status c on c.status::text = r.status
          cross join lateral (
                select e.position, e.occurred_at from event e
                 where e.class = 'T' and e.user_no = c.user_no and e.position <= $4
                   and e.from_status <> e.to_status
                   and coalesce(e.data ? 'imported', false) is false
                 order by e.sequence desc limit 1) b
          where b.occurred_at = c.since
            and c.since + r.for_ms * interval '1 millisecond' > log_clock()",
    )
    .bind(names)
    .bind(statuses)
    .bind(for_ms)
    .bind(head)
    .execute(connection)
    .await?;
    Ok(())
}

/// Claims what is due at `now` by these rules: this node's until [`LEASE`] ends. What a node does
/// not know yet, or any more, it leaves to others, or to the next page.
pub async fn claim(pool: &PgPool, rules: &[Rule], now: Timestamp) -> Result<Vec<Due>, Error> {
    let known: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    let due = sqlx::query_as(
        "update rule_due d set leased_until = clock_timestamp() + $2 * interval '1 second'
          where (rule, user_no) in (select rule, user_no from rule_due
                where due_at <= $1 and rule = any($4)
                  and (leased_until is null or leased_until <= clock_timestamp())
                order by due_at limit $3 for update skip locked)
         returning rule, user_no, position, since",
    )
    .bind(now)
    .bind(LEASE.as_secs() as i64)
    .bind(DUE_MAX)
    .bind(known)
    .fetch_all(pool)
    .await?;
    Ok(due)
}

/// It has acted.
pub async fn done(pool: &PgPool, due: &Due) -> Result<(), Error> {
    sqlx::query("delete from rule_due where rule = $1 and user_no = $2 and position = $3")
        .bind(&due.rule)
        .bind(due.user_no)
        .bind(due.position)
        .execute(pool)
        .await?;
    Ok(())
}

/// Has a webhook told, if the status still lasts, and is done with it: both or neither. False: the
/// webhook has too much to be told already; later, then.
pub async fn tell(pool: &PgPool, due: &Due, status: Status, webhook: Uuid) -> Result<bool, Error> {
    if deliveries::counts(pool, webhook).await?.pending >= PENDING_MAX {
        return Ok(false);
    }
    sqlx::query(
        "with done as (
            delete from rule_due where rule = $1 and user_no = $2 and position = $3
            returning rule, user_no, position, since)
         insert into webhook_delivery (webhook_id, position, rule, user_no, next_at)
         select w.webhook_id, done.position, done.rule, done.user_no, log_clock()
           from done
           join current_status c on c.user_no = done.user_no and c.status::text = $4
                                and c.since = done.since
           join webhook_cursor w on w.webhook_id = $5
         on conflict do nothing",
    )
    .bind(&due.rule)
    .bind(due.user_no)
    .bind(due.position)
    .bind(status.as_str())
    .bind(webhook)
    .execute(pool)
    .await?;
    Ok(true)
}
