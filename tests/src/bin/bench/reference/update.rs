//! What the replaced systems do: a row a user, overwritten by each heartbeat; no log at all.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{Executor as _, PgPool};

use crate::Failure;
use crate::reference::stock::Beat;

/// Who is online since when.
#[derive(Debug, Serialize)]
struct Beaten {
    user_id: i64,
    status: &'static str,
    last_seen: DateTime<Utc>,
}

/// The table of users, all of them online.
pub(super) async fn prepare(pool: &PgPool, users: usize) -> Result<(), Failure> {
    pool.execute(
        "create table users (
            id            bigint primary key,
            username      text not null,
            online_status text not null,
            last_seen     timestamptz not null
        )",
    )
    .await?;
    sqlx::query(
        "insert into users
         select id, 'user ' || id, 'online', now() from generate_series(0, $1 - 1) id",
    )
    .bind(users as i64)
    .execute(pool)
    .await?;
    Ok(())
}

/// One route.
pub(super) fn router(pool: PgPool) -> Router {
    Router::new().route("/users/{id}/heartbeat", post(heartbeat)).with_state(pool)
}

async fn heartbeat(
    State(pool): State<PgPool>,
    Path(user_id): Path<i64>,
    Json(beat): Json<Beat>,
) -> Result<Json<Beaten>, StatusCode> {
    let status = beat.status();
    let last_seen = Utc::now();
    let updated = sqlx::query("update users set online_status = $2, last_seen = $3 where id = $1")
        .bind(user_id)
        .bind(status)
        .bind(last_seen)
        .execute(&pool)
        .await;
    match updated {
        Ok(updated) if updated.rows_affected() == 1 => {
            Ok(Json(Beaten { user_id, status, last_seen }))
        }
        Ok(_) => Err(StatusCode::NOT_FOUND),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
