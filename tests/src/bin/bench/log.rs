//! What stands in the database: the proof of every acknowledgement, and rows to be copied.

use std::str::FromStr as _;

use futures::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgPoolCopyExt as _, PgPoolOptions};
use sqlx::{ConnectOptions as _, Executor as _, PgPool};

use crate::Failure;

/// How many bytes `copy` sends at a time.
const COPY_BYTES: usize = 64 * 1024;
/// The table that rows are copied into: a leaf of the log's heartbeats in all but its name.
const COPIED: &str = "bench_copied";

/// The benchmark's own connections, as the owner of everything.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pool: PgPool,
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
