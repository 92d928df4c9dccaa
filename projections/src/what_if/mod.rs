//! What history would have been under another policy: a few of them, by name.
//!
//! - [`work`]: makes one, slice by slice, resumable
//! - [`report`]: how it compares with what was

pub mod report;
pub mod work;

use domain::policy::PolicyPatch;
use domain::{Position, Timestamp, UserNo};
use sqlx::types::Json;
use sqlx::{FromRow, PgPool};

use crate::{Error, policy, tail};

/// Most of them at one time.
pub const WHAT_IFS_MAX: i64 = 8;
/// Longest name, in characters.
pub const NAME_LENGTH_MAX: usize = 64;

/// What one of them is for, and how far it is.
#[derive(Debug, Clone, FromRow)]
pub struct WhatIfView {
    /// Its name.
    pub name: String,
    patch: Json<PolicyPatch>,
    /// Of the events at or below it.
    pub upto: Position,
    /// As of then.
    pub upto_at: Timestamp,
    /// When it was asked for.
    pub made_at: Timestamp,
    /// Whether it is complete.
    pub done: bool,
    /// From 0 to 1.
    pub progress: f64,
    #[sqlx(rename = "done_to_user")]
    done_to_user: i64,
}

impl WhatIfView {
    /// What of the policy is otherwise.
    pub fn patch(&self) -> &PolicyPatch {
        &self.patch.0
    }

    /// Users at or below it are complete.
    pub fn done_to_user(&self) -> UserNo {
        UserNo(self.done_to_user)
    }
}

/// Why there is no new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is one of that name, with another patch, or it is just being dropped.
    #[error("there is one of that name")]
    Exists,
    /// There are as many as there may be.
    #[error("there may be at most {WHAT_IFS_MAX}; drop one")]
    TooMany,
}

/// Whether a text can be a name: 1 to 64 of `a-z 0-9 _ -`, beginning with a letter or digit.
pub fn is_name(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let allowed = |b: u8| word(b) || b == b'_' || b == b'-';
    text.len() <= NAME_LENGTH_MAX
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(allowed)
}

/// Asks for one; whoever works it off comes later. The same again changes nothing. A policy that
/// could not be put in force is refused as `PUT /v1/policy` refuses it.
pub async fn create(
    pool: &PgPool,
    name: &str,
    patch: &PolicyPatch,
) -> Result<Result<(), Refusal>, Error> {
    patch.applied_to(&policy::read(pool).await?.unwrap_or_default()).check()?;
    let mut transaction = pool.begin().await?;
    // One at a time: they are counted.
    sqlx::query("lock table what_if in share row exclusive mode")
        .execute(&mut *transaction)
        .await?;
    let known: Vec<(String, Json<PolicyPatch>, String)> =
        sqlx::query_as("select name, patch, state from what_if")
            .fetch_all(&mut *transaction)
            .await?;
    if let Some((_, known, state)) = known.iter().find(|(known, ..)| known == name) {
        let same = known.0 == *patch && state != "dropping";
        return Ok(if same { Ok(()) } else { Err(Refusal::Exists) });
    }
    if known.len() as i64 >= WHAT_IFS_MAX {
        return Ok(Err(Refusal::TooMany));
    }
    let newest = tail::newest(&mut transaction).await?;
    let (head, recorded_at) = newest.unwrap_or((0, Timestamp::UNIX_EPOCH));
    sqlx::query(
        "insert into what_if (name, patch, upto, upto_at, last_user)
         select $1, jsonb_strip_nulls($2), $3, $4, coalesce(max(user_no), 0) from current_status",
    )
    .bind(name)
    .bind(Json(patch))
    .bind(head)
    .bind(recorded_at)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Ok(()))
}

/// All of them, by name.
pub async fn list(pool: &PgPool) -> Result<Vec<WhatIfView>, Error> {
    let rows = sqlx::query_as(
        "select name, patch, upto, upto_at, made_at, state = 'done' as done, done_to_user,
                case when state = 'done' or last_user = 0 then 1.0 else least(1.0,
                    done_to_user::float8 / last_user
                    + position::float8 / greatest(upto, 1)
                      * least(1.0, $1::float8 / last_user)) end::float8 as progress
           from what_if where state <> 'dropping' order by name",
    )
    .bind(work::SLICE_USERS as f64)
    .fetch_all(pool)
    .await?;
    Ok(rows)
}

/// That one.
pub async fn find(pool: &PgPool, name: &str) -> Result<Option<WhatIfView>, Error> {
    Ok(list(pool).await?.into_iter().find(|view| view.name == name))
}

/// Drops one: it is gone at once; its rows go as somebody works them off. False: there is none.
pub async fn forget(pool: &PgPool, name: &str) -> Result<bool, Error> {
    let gone = sqlx::query(
        "update what_if set state = 'dropping', worker = null
          where name = $1 and state <> 'dropping'",
    )
    .bind(name)
    .execute(pool)
    .await?;
    Ok(gone.rows_affected() > 0)
}
