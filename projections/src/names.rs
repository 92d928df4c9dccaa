//! Outside names and their numbers: users, and the words that systems give.

use dashmap::DashMap;
use domain::{UserId, UserNo};
use sqlx::PgPool;

use crate::Error;

/// Words remembered by a node. A realm has as many as it has timers and actions; when this many are
/// remembered, all are forgotten and asked for again.
const WORDS_REMEMBERED_MAX: usize = 100_000;

/// The names that a node has met, and the way to the others.
#[derive(Debug)]
pub struct Names {
    pool: PgPool,
    users: DashMap<UserId, UserNo>,
    words: DashMap<Box<str>, i64>,
}

impl Names {
    /// Nothing remembered yet.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, users: DashMap::new(), words: DashMap::new() }
    }

    /// Remembers a user's number.
    pub fn remember(&self, user_id: UserId, user_no: UserNo) {
        self.users.insert(user_id, user_no);
    }

    /// The number of a user met before on this node.
    pub fn remembered(&self, user_id: &UserId) -> Option<UserNo> {
        self.users.get(user_id).map(|no| *no)
    }

    /// The number of a user who has one.
    pub async fn find(&self, user_id: &UserId) -> Result<Option<UserNo>, Error> {
        if let Some(user_no) = self.remembered(user_id) {
            return Ok(Some(user_no));
        }
        let found: Option<i64> =
            sqlx::query_scalar("select user_no from account where user_id = $1")
                .bind(user_id.as_str())
                .fetch_optional(&self.pool)
                .await?;
        Ok(found.map(|no| self.met(user_id, UserNo(no))))
    }

    /// The numbers of users, in their order; one query for all that this node has not met.
    pub async fn find_all(&self, users: &[UserId]) -> Result<Vec<Option<UserNo>>, Error> {
        let missing = users.iter().filter(|user| self.remembered(user).is_none());
        let missing: Vec<&str> = missing.map(UserId::as_str).collect();
        if !missing.is_empty() {
            let found: Vec<(i64, String)> =
                sqlx::query_as("select user_no, user_id from account where user_id = any($1)")
                    .bind(missing)
                    .fetch_all(&self.pool)
                    .await?;
            for (no, user_id) in found {
                if let Ok(user_id) = user_id.parse() {
                    self.remember(user_id, UserNo(no));
                }
            }
        }
        Ok(users.iter().map(|user| self.remembered(user)).collect())
    }

    /// What numbers stand for, of those that still stand for somebody.
    pub async fn named(&self, users: &[UserNo]) -> Result<Vec<UserId>, Error> {
        let numbers: Vec<i64> = users.iter().map(|user| user.0).collect();
        let statement = "select user_id from account where user_no = any($1) order by user_id";
        let found: Vec<String> =
            sqlx::query_scalar(statement).bind(numbers).fetch_all(&self.pool).await?;
        let undecodable = |_| Error::Undecodable("the name of a user".to_owned());
        found.iter().map(|name| name.parse().map_err(undecodable)).collect()
    }

    /// The user's number; a new one for a user who has none.
    pub async fn number(&self, user_id: &UserId) -> Result<UserNo, Error> {
        if let Some(user_no) = self.find(user_id).await? {
            return Ok(user_no);
        }
        let made: Option<i64> = sqlx::query_scalar(
            "insert into account (user_id) values ($1) on conflict (user_id) do nothing
             returning user_no",
        )
        .bind(user_id.as_str())
        .fetch_optional(&self.pool)
        .await?;
        if let Some(no) = made {
            return Ok(self.met(user_id, UserNo(no)));
        }
        // Somebody else was faster.
        self.find(user_id).await?.ok_or_else(|| Error::Database(sqlx::Error::RowNotFound))
    }

    /// The number of a word; a new one for a new word.
    pub async fn word(&self, word: &str) -> Result<i64, Error> {
        if let Some(no) = self.words.get(word) {
            return Ok(*no);
        }
        if self.words.len() >= WORDS_REMEMBERED_MAX {
            self.words.clear();
        }
        // Looked up first: an insert that conflicts would burn a number.
        let statement = "with found as (select word_no from word where word = $1),
                made as (insert into word (word) select $1 where not exists (select from found)
                         on conflict (word) do nothing returning word_no)
             select word_no from found union all select word_no from made";
        let mut no: Option<i64> = None;
        while no.is_none() {
            // Empty only where another transaction made it between the two halves: then it is there
            // the next time.
            no = sqlx::query_scalar(statement).bind(word).fetch_optional(&self.pool).await?;
        }
        let no = no.unwrap_or_default();
        self.words.insert(word.into(), no);
        Ok(no)
    }

    fn met(&self, user_id: &UserId, user_no: UserNo) -> UserNo {
        self.users.insert(user_id.clone(), user_no);
        user_no
    }
}
