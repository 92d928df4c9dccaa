//! What stands in the database: the proof of every acknowledgement, and rows to be copied.

use std::str::FromStr as _;

use futures::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgPoolCopyExt as _, PgPoolOptions};
use sqlx::{ConnectOptions as _, Executor as _, PgPool};
use uuid::Uuid;

use crate::Failure;
use crate::fill::{self, Fill};

/// How many bytes `copy` sends at a time.
const COPY_BYTES: usize = 64 * 1024;
/// The table that rows are copied into: a leaf of the log's heartbeats in all but its name.
const COPIED: &str = "bench_copied";

/// The benchmark's own connections, as the owner of everything.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pool: PgPool,
}

/// Ends of leases in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lapses {
    pub(crate) count: u64,
    /// From the end to its record, the longest, in milliseconds.
    pub(crate) behind_max_ms: f64,
    /// From the first end to the last, in milliseconds.
    pub(crate) apart_ms: f64,
}

/// The names of all sessions that were filled in for a group.
fn sessions_of(letter: char) -> (Uuid, Uuid) {
    let first = u128::from(u32::from(letter)) << 96;
    (Uuid::from_u128(first), Uuid::from_u128(first | u128::MAX >> 32))
}

/// Ways to reach one schema of the database at `url`.
pub(crate) fn options(url: &str, schema: &str) -> Result<PgConnectOptions, Failure> {
    let options = PgConnectOptions::from_str(url)?.options([("search_path", schema)]);
    Ok(options.disable_statement_logging())
}

impl Log {
    /// The log of the server that uses this database.
    pub(crate) fn new(url: &str) -> Result<Self, Failure> {
        let options = options(url, projections::db::SCHEMA)?;
        Ok(Self { pool: PgPoolOptions::new().max_connections(2).connect_lazy_with(options) })
    }

    /// Fills it, before its server starts.
    pub(crate) async fn fill(&self, with: &Fill) -> Result<(), Failure> {
        fill::fill(&mut *self.pool.acquire().await?, with).await
    }

    /// Does now what PostgreSQL would do in the background.
    pub(crate) async fn tidy(&self) -> Result<(), Failure> {
        for statement in ["vacuum analyze", "checkpoint"] {
            self.pool.execute(statement).await?;
        }
        Ok(())
    }

    /// Leaves the database to be stopped.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// A connection for questions of one work alone.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Gives users their numbers, so that logging them in needs no commit for each name.
    pub(crate) async fn introduce(&self, user_ids: &[String]) -> Result<(), Failure> {
        let statement = "insert into account (user_id) select unnest($1::text[])";
        sqlx::query(statement).bind(user_ids).execute(&self.pool).await?;
        Ok(())
    }

    /// The newest position drawn.
    pub(crate) async fn head(&self) -> Result<i64, Failure> {
        let head = sqlx::query_scalar(
            "select case when is_called then last_value else 0 end
            from log_pos",
        );
        Ok(head.fetch_one(&self.pool).await?)
    }

    /// Heartbeats in the log above one position, up to another.
    pub(crate) async fn heartbeats(&self, after: i64, to: i64) -> Result<u64, Failure> {
        let count = "select count(*) from event_h where position > $1 and position <= $2";
        self.count(count, after, to).await
    }

    /// Logins and logouts in the log above one position, up to another.
    pub(crate) async fn logins_and_logouts(&self, after: i64, to: i64) -> Result<u64, Failure> {
        let count = "select count(*) from event_t where position > $1 and position <= $2
            and type in ('session_opened', 'session_closed')";
        self.count(count, after, to).await
    }

    /// Transitions of users in the log above one position, up to another.
    pub(crate) async fn transitions(&self, after: i64, to: i64) -> Result<u64, Failure> {
        let count = "select count(*) from event_t where position > $1 and position <= $2
            and user_no is not null";
        self.count(count, after, to).await
    }

    /// When a transition was written down, in microseconds since 1970.
    pub(crate) async fn recorded_at_us(&self, position: i64) -> Result<u64, Failure> {
        let at: i64 = sqlx::query_scalar(
            "select (extract(epoch from recorded_at) * 1000000)::bigint from event_t
              where position = $1",
        )
        .bind(position)
        .fetch_one(&self.pool)
        .await?;
        Ok(at.cast_unsigned())
    }

    /// How long until the leases of a group begin to end, in milliseconds; none live: less than 0.
    pub(crate) async fn ends_in_ms(&self, letter: char) -> Result<i64, Failure> {
        let (first, last) = sessions_of(letter);
        let ends: Option<f64> = sqlx::query_scalar(
            "select extract(epoch from lease_end(min(last_seen), max(lease_ms)) - log_clock())
                    ::float8 * 1000
               from live_session where session_id between $1 and $2",
        )
        .bind(first)
        .bind(last)
        .fetch_one(&self.pool)
        .await?;
        Ok(ends.map_or(-1, |ms| ms as i64))
    }

    /// Whether any session of a group is live. Cheap: it is asked while others are at work.
    pub(crate) async fn any_live(&self, letter: char) -> Result<bool, Failure> {
        let (first, last) = sessions_of(letter);
        let any = sqlx::query_scalar(
            "select exists (select from live_session where session_id between $1 and $2)",
        );
        Ok(any.bind(first).bind(last).fetch_one(&self.pool).await?)
    }

    /// Ends of a group's leases.
    pub(crate) async fn lapses(&self, letter: char) -> Result<Lapses, Failure> {
        let (first, last) = sessions_of(letter);
        let row: (i64, Option<f64>, Option<f64>) = sqlx::query_as(
            "select count(*),
                    extract(epoch from max(recorded_at - occurred_at))::float8 * 1000,
                    extract(epoch from max(occurred_at) - min(occurred_at))::float8 * 1000
               from event_t where type = 'session_expired' and session_id between $1 and $2",
        )
        .bind(first)
        .bind(last)
        .fetch_one(&self.pool)
        .await?;
        let (count, behind, apart) = row;
        Ok(Lapses {
            count: count.cast_unsigned(),
            behind_max_ms: behind.unwrap_or_default(),
            apart_ms: apart.unwrap_or_default(),
        })
    }

    /// Rows of each view that was built anew, and of what was live before.
    pub(crate) async fn rebuilt(&self) -> Result<Vec<(String, i64, i64)>, Failure> {
        let versions: Vec<(String, i32, i32)> = sqlx::query_as(
            "select l.view, l.version, k.version
               from view_version l join view_version k using (view)
              where l.state = 'live' and k.state = 'kept' order by l.view",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut found = Vec::new();
        for (view, live, kept) in versions {
            let mut rows = [0_i64; 2];
            for (rows, version) in rows.iter_mut().zip([live, kept]) {
                let count = format!("select count(*) from {view}_{version}");
                *rows = sqlx::query_scalar(&count).fetch_one(&self.pool).await?;
            }
            found.push((view, rows[0], rows[1]));
        }
        Ok(found)
    }

    async fn count(&self, statement: &'static str, after: i64, to: i64) -> Result<u64, Failure> {
        let count: i64 =
            sqlx::query_scalar(statement).bind(after).bind(to).fetch_one(&self.pool).await?;
        Ok(count as u64)
    }

    /// The rows of heartbeats above one position, up to another, as `copy` writes them.
    pub(crate) async fn rows(&self, after: i64, to: i64) -> Result<Vec<u8>, Failure> {
        let statement = format!(
            "copy (select * from event_h where position > {after} and position <= {to}
             order by position) to stdout (format binary)"
        );
        let mut chunks = self.pool.copy_out_raw(&statement).await?;
        let mut rows = Vec::new();
        while let Some(chunk) = chunks.try_next().await? {
            rows.extend_from_slice(&chunk);
        }
        Ok(rows)
    }

    /// Makes an empty table like the first leaf of heartbeats, with its indexes, or empties it.
    pub(crate) async fn empty_copy(&self) -> Result<(), Failure> {
        let leaf: String = sqlx::query_scalar(
            "select inhrelid::regclass::text from pg_inherits
             where inhparent = 'event_h'::regclass order by 1 limit 1",
        )
        .fetch_one(&self.pool)
        .await?;
        let table = format!("create table if not exists {COPIED} (like {leaf} including all)");
        self.pool.execute(table.as_str()).await?;
        self.pool.execute(format!("truncate {COPIED}").as_str()).await?;
        Ok(())
    }

    /// Copies rows in, in one transaction, and says how many.
    pub(crate) async fn copy(&self, rows: &[u8]) -> Result<u64, Failure> {
        let statement = format!("copy {COPIED} from stdin (format binary)");
        let mut copy = self.pool.copy_in_raw(&statement).await?;
        for chunk in rows.chunks(COPY_BYTES) {
            copy.send(chunk).await?;
        }
        Ok(copy.finish().await?)
    }

    /// Whether a crash could lose what was acknowledged: then no figure says anything.
    pub(crate) async fn is_durable(&self) -> Result<bool, Failure> {
        let durable = sqlx::query_scalar(
            "select bool_and(setting = 'on') from pg_settings
             where name in ('fsync', 'synchronous_commit', 'full_page_writes')",
        );
        Ok(durable.fetch_one(&self.pool).await?)
    }
}
