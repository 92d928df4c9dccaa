//! Tokens no longer believed, kept by all nodes.

use domain::Timestamp;
use sqlx::{PgConnection, PgPool};

use crate::Error;

/// A revoked token: its `jti`, else its hash, until it would have ended anyway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The token's key.
    pub key: String,
    /// When nobody would believe it anyway.
    pub expires_at: Timestamp,
}

/// Revokes a token on every node, within a second.
pub async fn revoke(pool: &PgPool, revocation: &Revocation) -> Result<(), Error> {
    sqlx::query(
        "insert into revocation (token_key, expires_at) values ($1, $2)
         on conflict (token_key) do nothing",
    )
    .bind(&revocation.key)
    .bind(revocation.expires_at)
    .execute(pool)
    .await?;
    Ok(())
}

/// All that still matter, or only the recent ones. The margin covers transactions that were slow to
/// commit: reading one twice does no harm.
pub(crate) async fn read(
    connection: &mut PgConnection,
    recent_only: bool,
) -> Result<Vec<Revocation>, Error> {
    let rows: Vec<(String, Timestamp)> = sqlx::query_as(
        "select token_key, expires_at from revocation
         where not $1 or revoked_at > clock_timestamp() - interval '1 minute'",
    )
    .bind(recent_only)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(key, expires_at)| Revocation { key, expires_at }).collect())
}
