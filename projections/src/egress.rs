//! How far the log has been handed on to another system. One node at a time hands on, for a lease;
//! the checkpoint moves after the other system has confirmed, so everything arrives at least once.

use std::time::Duration;

use domain::Position;
use sqlx::PgPool;
use uuid::Uuid;

use crate::Error;

/// How long a node may hand on without renewing; longer than one page takes at most.
pub const LEASE: Duration = Duration::from_secs(30);

/// Takes or renews the lease; the checkpoint, or none where another node has it. A target that is
/// new begins with the log.
pub async fn take(pool: &PgPool, target: &str, node: Uuid) -> Result<Option<Position>, Error> {
    let position = sqlx::query_scalar(
        "insert into egress as e (target, leased_by, leased_until)
         values ($1, $2, clock_timestamp() + $3 * interval '1 second')
         on conflict (target) do update
            set leased_by = excluded.leased_by, leased_until = excluded.leased_until
          where e.leased_by = $2 or e.leased_until is null
             or e.leased_until <= clock_timestamp()
         returning position",
    )
    .bind(target)
    .bind(node)
    .bind(LEASE.as_secs() as i64)
    .fetch_optional(pool)
    .await?;
    Ok(position)
}

/// Everything up to here has been confirmed. Nothing moves where the lease went to another node.
pub async fn confirm(
    pool: &PgPool,
    target: &str,
    node: Uuid,
    position: Position,
) -> Result<(), Error> {
    sqlx::query(
        "update egress set position = greatest(position, $3)
          where target = $1 and leased_by = $2",
    )
    .bind(target)
    .bind(node)
    .bind(position)
    .execute(pool)
    .await?;
    Ok(())
}

/// Gives the lease back.
pub async fn release(pool: &PgPool, node: Uuid) -> Result<(), Error> {
    sqlx::query("update egress set leased_by = null, leased_until = null where leased_by = $1")
        .bind(node)
        .execute(pool)
        .await?;
    Ok(())
}
