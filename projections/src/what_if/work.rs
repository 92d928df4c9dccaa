//! Makes what was asked for, a slice of users at a time.
//!
//! Heartbeats cannot be read by user, only by windows of positions. So each slice reads the whole
//! log once, in windows, and keeps one compact state for each of its users (some 500 bytes); spans
//! leave memory as soon as nothing can change them. N users cost `ceil(N / SLICE_USERS)` passes
//! over the log, in bounded memory. No transaction outlasts a window, a flush or the sum of some
//! users.

use std::collections::HashMap;
use std::time::Duration;

use domain::policy::PolicyPatch;
use domain::what_if::{Fold, Span, WhatIf};
use domain::{Body, Event, Policy, Position, SessionId, Silence, Silences, Timestamp};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{Connection, FromRow, PgConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Error;
use crate::db::Database;

/// Users whose states are in memory at one time.
pub const SLICE_USERS: i64 = 50_000;
/// Positions that one statement looks through.
const WINDOW: Position = 20_000;
/// Spans written in one transaction.
const FLUSH_SPANS: usize = 5_000;
/// Users summed up, or searched for imports, in one transaction.
const SUM_USERS: i64 = 1_000;
/// Rows dropped in one transaction.
const DROP_ROWS: i64 = 20_000;
/// A status that lasted less is a flap.
pub const FLAP: Duration = Duration::from_mins(1);
/// Whoever was silent for so long is at it no longer.
const WORKER_GONE: Duration = Duration::from_secs(30);
/// Between two looks whether there is something to do.
const POLL: Duration = Duration::from_secs(1);

/// How one look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worked {
    /// It is complete, or all of it is gone.
    Finished,
    /// Somebody else is at it, or it was dropped meanwhile.
    Taken,
    /// Stopped; whoever comes next goes on.
    Stopped,
}

/// Works off whatever is asked for, until `stop`: each node does, and they share without a leader.
pub async fn run(database: Database, stop: CancellationToken) {
    loop {
        if let Err(error) = round(&database, &stop).await {
            tracing::warn!(%error, "working off what-ifs");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

async fn round(database: &Database, stop: &CancellationToken) -> Result<(), Error> {
    let mut connection = database.server().await?;
    let names: Vec<String> =
        sqlx::query_scalar("select name from what_if where state <> 'done' order by made_at")
            .fetch_all(&mut connection)
            .await?;
    connection.close().await?;
    for name in names {
        work(database, &name, stop, |_| ()).await?;
    }
    Ok(())
}

#[derive(Debug, Clone, FromRow)]
struct Claim {
    patch: Json<PolicyPatch>,
    upto: Position,
    upto_at: Timestamp,
    last_user: i64,
    done_to_user: i64,
}

/// One of them under way.
struct Work<'a> {
    connection: PgConnection,
    name: &'a str,
    worker: Uuid,
    claim: Claim,
    what_if: WhatIf,
    gone: Option<(Position, Timestamp)>,
    spans: Vec<(i64, Span)>,
}

/// Works on one until it is finished, taken by somebody else, or `stop`; tells how far it is, in
/// positions of the passes that it takes: (done, all).
pub async fn work(
    database: &Database,
    name: &str,
    stop: &CancellationToken,
    mut tell: impl FnMut((u64, u64)),
) -> Result<Worked, Error> {
    let mut connection = database.server().await?;
    let worker = Uuid::now_v7();
    let Some(claim) = claim(&mut connection, name, worker, 0).await? else {
        let finished = clear(&mut connection, name).await?;
        connection.close().await?;
        return Ok(if finished { Worked::Finished } else { Worked::Taken });
    };
    let patch = claim.patch.0.clone();
    let what_if = WhatIf { patch, silences: silences(&mut connection).await? };
    let (gone, spans) = (None, Vec::new());
    let mut work = Work { connection, name, worker, claim, what_if, gone, spans };
    let ended = work.all(stop, &mut tell).await;
    // Whoever comes next need not wait until this one is taken for gone.
    sqlx::query("update what_if set worker = null where name = $1 and worker = $2")
        .bind(name)
        .bind(worker)
        .execute(&mut work.connection)
        .await?;
    work.connection.close().await?;
    ended
}

/// Takes it, or says again that this worker is at it; none: it is not to be had.
async fn claim(
    connection: &mut PgConnection,
    name: &str,
    worker: Uuid,
    position: Position,
) -> Result<Option<Claim>, Error> {
    let claim = sqlx::query_as(
        "update what_if set worker = $2, moved_at = clock_timestamp(), position = $3
          where name = $1 and state = 'building'
            and (worker is null or worker = $2 or moved_at < clock_timestamp() - $4)
         returning patch, upto, upto_at, last_user, done_to_user",
    )
    .bind(name)
    .bind(worker)
    .bind(position)
    .bind(WORKER_GONE)
    .fetch_optional(connection)
    .await?;
    Ok(claim)
}

/// Drops the rows of one that is to go. False: it is not.
async fn clear(connection: &mut PgConnection, name: &str) -> Result<bool, Error> {
    let state: Option<String> = sqlx::query_scalar("select state from what_if where name = $1")
        .bind(name)
        .fetch_optional(&mut *connection)
        .await?;
    match state.as_deref() {
        Some("dropping") => {}
        Some("done") | None => return Ok(true),
        Some(_) => return Ok(false),
    }
    for table in ["what_if_span", "what_if_day", "what_if_user"] {
        let statement = format!(
            "delete from {table} where ctid = any (array(
                select ctid from {table} where name = $1 limit $2))"
        );
        let mut gone = DROP_ROWS as u64;
        while gone == DROP_ROWS as u64 {
            let done = sqlx::query(&statement).bind(name).bind(DROP_ROWS);
            gone = done.execute(&mut *connection).await?.rows_affected();
        }
    }
    sqlx::query("delete from what_if where name = $1 and state = 'dropping'")
        .bind(name)
        .execute(connection)
        .await?;
    Ok(true)
}

async fn silences(connection: &mut PgConnection) -> Result<Silences, Error> {
    let all: Vec<(Timestamp, Timestamp)> =
        sqlx::query_as("select from_at, to_at from silence").fetch_all(connection).await?;
    Ok(Silences::new(all.into_iter().map(|(from, to)| Silence { from, to }).collect()))
}

/// Up to where heartbeats are gone, and when the first event after that was recorded.
async fn gone(connection: &mut PgConnection) -> Result<Option<(Position, Timestamp)>, Error> {
    let gone = sqlx::query_as(
        "select r.number - 1, e.recorded_at from relay r
          cross join lateral (select recorded_at from event
                               where class = 'T' and position >= r.number
                               order by position limit 1) e
          where r.source = 'retention'",
    )
    .fetch_optional(connection)
    .await?;
    Ok(gone)
}

/// What a window holds.
#[derive(FromRow)]
struct Read {
    position: Position,
    user_no: Option<i64>,
    occurred_at: Timestamp,
    session_id: Option<SessionId>,
    idle_ms: Option<i32>,
    /// Of transitions, and of changes of the policy.
    told: Option<Value>,
}

const WINDOW_STATEMENT: &str = "
    select e.position, e.user_no, e.occurred_at, e.session_id, e.idle_ms,
           case when e.user_no is null then e.data -> 'policy' when e.class = 'T' then
               jsonb_strip_nulls(jsonb_build_object('type', e.type, 'at', rfc3339(e.occurred_at),
                   'session', e.session_id, 'reason', e.reason,
                   case when e.type in ('action_allowed', 'action_refused')
                        then 'action' else 'source' end, w.word)) || coalesce(e.data, '{}') end
               as told
      from event e left join word w on w.word_no = e.word_no
     where e.position > $1 and e.position <= $2
       and (e.user_no > $3 and e.user_no <= $4 or e.type = 'policy_changed')
       and e.data ? 'imported' is not true
     order by e.position";

impl Work<'_> {
    async fn all(
        &mut self,
        stop: &CancellationToken,
        tell: &mut impl FnMut((u64, u64)),
    ) -> Result<Worked, Error> {
        loop {
            let from = self.claim.done_to_user;
            let to: Option<i64> = sqlx::query_scalar(
                "select max(user_no) from (select user_no from current_status
                  where user_no > $1 and user_no <= $2 order by user_no limit $3) slice",
            )
            .bind(from)
            .bind(self.claim.last_user)
            .bind(SLICE_USERS)
            .fetch_one(&mut self.connection)
            .await?;
            let Some(to) = to else { return self.finish().await };
            match self.slice(from, to, stop, tell).await? {
                Worked::Finished => self.claim.done_to_user = to,
                worked @ (Worked::Taken | Worked::Stopped) => return Ok(worked),
            }
        }
    }

    async fn finish(&mut self) -> Result<Worked, Error> {
        let done = sqlx::query(
            "update what_if set state = 'done', done_to_user = last_user
              where name = $1 and worker = $2 and state = 'building'",
        )
        .bind(self.name)
        .bind(self.worker)
        .execute(&mut self.connection)
        .await?;
        Ok(if done.rows_affected() > 0 { Worked::Finished } else { Worked::Taken })
    }

    /// Users above `from` and up to `to`, from their first event on.
    async fn slice(
        &mut self,
        from: i64,
        to: i64,
        stop: &CancellationToken,
        tell: &mut impl FnMut((u64, u64)),
    ) -> Result<Worked, Error> {
        // What an earlier worker left of a slice that it did not complete.
        let left = "delete from what_if_span where name = $1 and user_no > $2";
        sqlx::query(left).bind(self.name).bind(from).execute(&mut self.connection).await?;
        self.spans.clear();
        self.gone = gone(&mut self.connection).await?;
        let mut folds: HashMap<i64, Fold> = HashMap::new();
        self.import(from, to, &mut folds).await?;
        let mut policy = Policy::default();
        let upto = self.claim.upto;
        let passes = |users: i64| users.div_euclid(SLICE_USERS).unsigned_abs();
        let all = (passes(self.claim.last_user - 1) + 1) * upto.unsigned_abs();
        let mut at: Position = 0;
        while at < upto {
            if stop.is_cancelled() {
                return Ok(Worked::Stopped);
            }
            let end = (at + WINDOW).min(upto);
            self.window((at, end), (from, to), &mut policy, &mut folds).await?;
            at = end;
            if claim(&mut self.connection, self.name, self.worker, at).await?.is_none() {
                return Ok(Worked::Taken);
            }
            tell((passes(from) * upto.unsigned_abs() + at.unsigned_abs(), all));
            if self.spans.len() >= FLUSH_SPANS && !self.flush().await? {
                return Ok(Worked::Taken);
            }
        }
        if gone(&mut self.connection).await? != self.gone {
            // Heartbeats went while they were being read. That is once in a leaf: again.
            return Box::pin(self.slice(from, to, stop, tell)).await;
        }
        for (user, mut fold) in folds {
            self.begin(&mut fold);
            fold.until(&self.what_if, &policy, self.claim.upto_at);
            self.spans.extend(fold.finish().into_iter().map(|span| (user, span)));
            if self.spans.len() >= FLUSH_SPANS && !self.flush().await? {
                return Ok(Worked::Taken);
            }
        }
        if !self.flush().await? {
            return Ok(Worked::Taken);
        }
        self.sum_up(from, to).await
    }

    /// Imported events were not written down in the order in which they happened, so they are read
    /// by user: there is a tree for that.
    async fn import(
        &mut self,
        from: i64,
        to: i64,
        folds: &mut HashMap<i64, Fold>,
    ) -> Result<(), Error> {
        let mut above = from;
        while above < to {
            let upto = (above + SUM_USERS).min(to);
            let rows: Vec<(i64, Value)> = sqlx::query_as(
                "select e.user_no,
                        jsonb_strip_nulls(jsonb_build_object('type', e.type,
                            'at', rfc3339(e.occurred_at), 'session', e.session_id,
                            'reason', e.reason)) || e.data
                   from event e
                  where e.class = 'T' and e.user_no > $1 and e.user_no <= $2
                    and e.position <= $3 and e.data ? 'imported'
                  order by e.user_no, e.occurred_at, e.sequence",
            )
            .bind(above)
            .bind(upto)
            .bind(self.claim.upto)
            .fetch_all(&mut self.connection)
            .await?;
            for (user, told) in rows {
                let fold = folds.entry(user).or_default();
                fold.import(&decode(told)?);
                self.spans.extend(fold.drain().map(|span| (user, span)));
            }
            above = upto;
        }
        Ok(())
    }

    async fn window(
        &mut self,
        (after, upto): (Position, Position),
        (from, to): (i64, i64),
        policy: &mut Policy,
        folds: &mut HashMap<i64, Fold>,
    ) -> Result<(), Error> {
        let query = sqlx::query_as(WINDOW_STATEMENT).bind(after).bind(upto).bind(from).bind(to);
        let rows: Vec<Read> = query.fetch_all(&mut self.connection).await?;
        for row in rows {
            let Some(user) = row.user_no else {
                *policy = decode(row.told.unwrap_or_default())?;
                continue;
            };
            let event = match (row.told, row.session_id) {
                (Some(told), _) => decode(told)?,
                (None, Some(session)) => {
                    let idle_ms = row.idle_ms.unwrap_or_default().unsigned_abs();
                    let body = Body::Heartbeat { session, idle_ms, imported: false };
                    Event { at: row.occurred_at, body }
                }
                (None, None) => return Err(Error::Undecodable("a heartbeat".to_owned())),
            };
            let fold = folds.entry(user).or_default();
            if self.gone.is_some_and(|(upto, _)| row.position <= upto) {
                fold.as_it_was(&event);
            } else {
                self.begin(fold);
                fold.take(&self.what_if, &event, policy);
            }
            self.spans.extend(fold.drain().map(|span| (user, span)));
        }
        Ok(())
    }

    fn begin(&self, fold: &mut Fold) {
        if let Some((_, at)) = self.gone {
            fold.begin(&self.what_if, at);
        }
    }

    /// Writes what is settled. False: somebody else is at it, and nothing was written.
    async fn flush(&mut self) -> Result<bool, Error> {
        for spans in std::mem::take(&mut self.spans).chunks(FLUSH_SPANS) {
            let mut transaction = self.connection.begin().await?;
            let mine: Option<i32> = sqlx::query_scalar(
                "select 1 from what_if where name = $1 and worker = $2 and state = 'building'
                    for share",
            )
            .bind(self.name)
            .bind(self.worker)
            .fetch_optional(&mut *transaction)
            .await?;
            if mine.is_none() {
                return Ok(false);
            }
            sqlx::query(
                "insert into what_if_span (name, user_no, from_at, to_at, status)
                 select $1, s.user_no, s.from_at, s.to_at, s.status::presence_status
                   from unnest($2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::text[])
                        s (user_no, from_at, to_at, status)",
            )
            .bind(self.name)
            .bind(spans.iter().map(|(user, _)| *user).collect::<Vec<_>>())
            .bind(spans.iter().map(|(_, span)| span.from).collect::<Vec<_>>())
            .bind(spans.iter().map(|(_, span)| span.to).collect::<Vec<_>>())
            .bind(spans.iter().map(|(_, span)| span.status.as_str()).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
        }
        Ok(true)
    }

    /// What was and what would have been, summed up; users are complete afterwards.
    async fn sum_up(&mut self, from: i64, to: i64) -> Result<Worked, Error> {
        let mut above = from;
        while above < to {
            let upto = (above + SUM_USERS).min(to);
            let mut transaction = self.connection.begin().await?;
            let mine = sqlx::query(
                "update what_if set done_to_user = $3, position = 0, moved_at = clock_timestamp()
                  where name = $1 and worker = $2 and state = 'building'",
            )
            .bind(self.name)
            .bind(self.worker)
            .bind(upto)
            .execute(&mut *transaction)
            .await?;
            if mine.rows_affected() == 0 {
                return Ok(Worked::Taken);
            }
            sqlx::query(include_str!("compare.sql"))
                .bind(self.name)
                .bind(above)
                .bind(upto)
                .bind(self.claim.upto)
                .bind(self.claim.upto_at)
                .bind(FLAP)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            above = upto;
        }
        Ok(Worked::Finished)
    }
}

fn decode<T: serde::de::DeserializeOwned>(told: Value) -> Result<T, Error> {
    serde_json::from_value(told).map_err(|error| Error::Undecodable(error.to_string()))
}
