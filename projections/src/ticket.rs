//! Tickets, each good once on any node for a short while, and the secret that all nodes share.

use std::time::Duration;

use domain::Timestamp;
use serde_json::Value;
use sqlx::PgPool;

use crate::Error;

/// How long a ticket is good.
pub const TICKET_LIFE: Duration = Duration::from_secs(30);

/// Keeps what a ticket stands for, by the ticket's SHA-256; until when it is good.
pub async fn make(pool: &PgPool, hash: [u8; 32], identity: &Value) -> Result<Timestamp, Error> {
    let life_ms = TICKET_LIFE.as_millis() as i32;
    let query = sqlx::query_scalar("select make_ticket($1, $2, $3)");
    Ok(query.bind(hash.as_slice()).bind(identity).bind(life_ms).fetch_one(pool).await?)
}

/// What a ticket stands for; none if it is not known, was used, or is too old. Only the first who
/// asks is told.
pub async fn redeem(pool: &PgPool, hash: [u8; 32]) -> Result<Option<Value>, Error> {
    let query = sqlx::query_scalar("select use_ticket($1)");
    Ok(query.bind(hash.as_slice()).fetch_one(pool).await?)
}

/// What resume tokens are signed with.
pub(crate) async fn secret(pool: &PgPool) -> Result<[u8; 32], Error> {
    let secret: Vec<u8> =
        sqlx::query_scalar("select secret from live_secret").fetch_one(pool).await?;
    secret.try_into().map_err(|_| Error::Undecodable("the secret of live feeds".to_owned()))
}
