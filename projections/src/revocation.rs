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

/// Whether a token is revoked, as the database has it at this moment.
pub async fn contains(pool: &PgPool, key: &str) -> Result<bool, Error> {
    let statement = "select exists (select from revocation where token_key = $1)";
    Ok(sqlx::query_scalar(statement).bind(key).fetch_one(pool).await?)
}

/// Those revoked since that instant of the database's, and when this was read. The margin covers
/// transactions that were slow to commit: reading one twice does no harm. However long a node was
/// cut off, it asks from where it had come to.
pub(crate) async fn read(
    connection: &mut PgConnection,
    since: Timestamp,
) -> Result<(Vec<Revocation>, Timestamp), Error> {
    let rows: Vec<(Timestamp, Option<String>, Option<Timestamp>)> = sqlx::query_as(
        "select statement_timestamp(), r.token_key, r.expires_at
         from (values (1)) always
         left join revocation r
             on r.revoked_at > least($1, statement_timestamp()) - interval '1 minute'",
    )
    .bind(since)
    .fetch_all(connection)
    .await?;
    let read_at = rows.first().map_or(since, |(read_at, ..)| *read_at);
    let revocation = |(_, key, expires_at): (_, Option<String>, Option<Timestamp>)| {
        Some(Revocation { key: key?, expires_at: expires_at? })
    };
    Ok((rows.into_iter().filter_map(revocation).collect(), read_at))
}
