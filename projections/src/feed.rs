//! Transitions as live feeds follow them: in position order, from the log alone.
//!
//! History from elsewhere is none of them: it is no part of the present.

use domain::{Position, Status, Timestamp, UserNo};
use sqlx::postgres::PgRow;
use sqlx::{Executor, PgConnection, Row};

use crate::Error;
use crate::db::Database;

/// Most transitions of one page.
pub const PAGE_MAX: usize = 1_000;

/// A transition, as far as it may change what somebody is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Its place in the log.
    pub position: Position,
    /// About whom.
    pub user_no: UserNo,
    /// The status before it.
    pub from: Status,
    /// The status after it.
    pub to: Status,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// What else it may have changed.
    pub other: Other,
}

/// What a transition may change beside the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other {
    /// Nothing.
    Nothing,
    /// The user went invisible, or came back.
    Visibility {
        /// Invisible from here on, or not.
        invisible: bool,
    },
    /// A claim was made, with it perhaps the text that is shown.
    ClaimSet,
    /// A claim ended, with it perhaps the text that is shown.
    ClaimEnded,
}

/// Where following begins.
#[derive(Debug, Clone)]
pub struct Start {
    /// The log's head.
    pub head: Position,
    /// Who is invisible as of it.
    pub invisible: Vec<UserNo>,
}

const SELECT: &str = "select position, user_no, from_status::text as from_status,
        to_status::text as to_status, occurred_at, type::text as type,
        (data ->> 'invisible')::boolean as invisible
    from event
    where class = 'T' and position > $1 and position <= $2 and user_no is not null
      and (data is null or not data ? 'imported')";
/// Of these, those that may have changed what somebody is shown.
const CHANGES: &str = "and (from_status <> to_status
           or type in ('visibility_changed', 'claim_set', 'claim_cleared', 'claim_expired'))";

/// A reader of the log with a connection of its own, which it makes anew after an error.
#[derive(Debug)]
pub struct Feed {
    database: Database,
    connection: Option<PgConnection>,
}

impl Feed {
    /// Not yet connected.
    pub(crate) fn new(database: Database) -> Self {
        Self { database, connection: None }
    }

    /// The head and who is invisible there, of one snapshot.
    pub async fn start(&mut self) -> Result<Start, Error> {
        let statement = "select
            coalesce((select head from batch order by batch_no desc limit 1), 0) as head,
            array(select user_no from current_status where invisible) as invisible";
        let mut connection = self.connected().await?;
        let row = sqlx::query(statement).fetch_one(&mut connection).await?;
        let invisible: Vec<i64> = row.try_get("invisible")?;
        let invisible = invisible.into_iter().map(UserNo).collect();
        let start = Start { head: row.try_get("head")?, invisible };
        self.connection = Some(connection);
        Ok(start)
    }

    /// The next transitions above `after`, up to `head`, oldest first: at most [`PAGE_MAX`]. Every
    /// one, so that whoever compares a user's state with them meets the one that made it.
    pub async fn page(
        &mut self,
        after: Position,
        head: Position,
    ) -> Result<Vec<Transition>, Error> {
        let statement = format!("{SELECT} order by position limit $3");
        self.read(&statement, after, head, PAGE_MAX).await
    }

    /// The last `limit` transitions up to `head` that may have changed something, newest first.
    pub async fn before(&mut self, head: Position, limit: usize) -> Result<Vec<Transition>, Error> {
        let statement = format!("{SELECT} {CHANGES} order by position desc limit $3");
        self.read(&statement, 0, head, limit).await
    }

    /// Ends the connection; the next call makes another.
    pub fn rest(&mut self) {
        self.connection = None;
    }

    async fn read(
        &mut self,
        statement: &str,
        after: Position,
        head: Position,
        limit: usize,
    ) -> Result<Vec<Transition>, Error> {
        let mut connection = self.connected().await?;
        let query = sqlx::query(statement).bind(after).bind(head).bind(limit as i64);
        let rows = query.fetch_all(&mut connection).await?;
        let transitions = rows.iter().map(transition).collect::<Result<_, _>>()?;
        self.connection = Some(connection);
        Ok(transitions)
    }

    /// Taken out: whoever fails or is cancelled leaves none behind.
    async fn connected(&mut self) -> Result<PgConnection, Error> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = self.database.server().await?;
        // A plan that was made while the log was still empty would read all of it for ever.
        connection.execute("set enable_seqscan = off").await?;
        Ok(connection)
    }
}

fn transition(row: &PgRow) -> Result<Transition, Error> {
    let position: Position = row.try_get("position")?;
    let status = |column: &str| {
        let text: &str = row.try_get(column)?;
        text.parse().map_err(|_| Error::Undecodable(format!("{column} of event {position}")))
    };
    let other = match row.try_get("type")? {
        "visibility_changed" => Other::Visibility {
            invisible: row.try_get::<Option<bool>, _>("invisible")?.unwrap_or_default(),
        },
        "claim_set" => Other::ClaimSet,
        "claim_cleared" | "claim_expired" => Other::ClaimEnded,
        _ => Other::Nothing, // A text of the log, not an enum of ours.
    };
    Ok(Transition {
        position,
        user_no: UserNo(row.try_get("user_no")?),
        from: status("from_status")?,
        to: status("to_status")?,
        occurred_at: row.try_get("occurred_at")?,
        other,
    })
}
