//! What was, read from the log.

use domain::{Position, Reason, SessionId, Status, Timestamp, UserId, UserNo};
use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use crate::Error;

/// One event as the log has it, with outside names where they are known.
#[derive(Debug, Clone)]
pub struct LoggedEvent {
    /// Its place in the log.
    pub position: Position,
    /// Its stored name.
    pub name: String,
    /// About whom; none for the system's own, and for erased users.
    pub user_id: Option<UserId>,
    /// The user's count of transitions.
    pub sequence: Option<i64>,
    /// About which session.
    pub session_id: Option<SessionId>,
    /// The status before it.
    pub from_status: Option<Status>,
    /// The status after it.
    pub to_status: Option<Status>,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When it was written down.
    pub recorded_at: Timestamp,
    /// Why a session ended.
    pub reason: Option<Reason>,
    /// Who caused it.
    pub actor: Option<UserId>,
    /// What else it says, with its details.
    pub data: Map<String, Value>,
}

pub(crate) const SELECT: &str = "select e.position, e.type::text as type, e.sequence, e.session_id,
        e.from_status::text as from_status, e.to_status::text as to_status, e.occurred_at,
        e.recorded_at, e.reason::text as reason, e.idle_ms, e.data, d.detail, w.word,
        u.user_id, a.user_id as actor
    from event e
    left join account u on u.user_no = e.user_no
    left join account a on a.user_no = e.actor_no
    left join word w on w.word_no = e.word_no
    left join detail d on d.position = e.position";

/// Transitions of one user above a sequence, oldest first.
pub async fn transitions(
    pool: &PgPool,
    user: UserNo,
    after_sequence: i64,
    limit: i64,
) -> Result<Vec<LoggedEvent>, Error> {
    let statement = format!(
        "{SELECT} where e.class = 'T' and e.user_no = $1 and e.sequence > $2
         order by e.sequence limit $3"
    );
    let query = sqlx::query(&statement).bind(user.0).bind(after_sequence).bind(limit);
    query.fetch_all(pool).await?.iter().map(read).collect()
}

/// The newest transitions of one user, newest first.
pub async fn latest(pool: &PgPool, user: UserNo, limit: i64) -> Result<Vec<LoggedEvent>, Error> {
    let statement = format!(
        "{SELECT} where e.class = 'T' and e.user_no = $1 order by e.sequence desc limit $2"
    );
    let query = sqlx::query(&statement).bind(user.0).bind(limit);
    query.fetch_all(pool).await?.iter().map(read).collect()
}

/// One event by its position.
pub async fn at_position(pool: &PgPool, position: Position) -> Result<Option<LoggedEvent>, Error> {
    let statement = format!("{SELECT} where e.position = $1");
    let row = sqlx::query(&statement).bind(position).fetch_optional(pool).await?;
    row.as_ref().map(read).transpose()
}

/// Events by their positions, in no order; those that the log does not have are left out.
pub async fn at_positions(
    pool: &PgPool,
    positions: &[Position],
) -> Result<Vec<LoggedEvent>, Error> {
    let statement = format!("{SELECT} where e.class = 'T' and e.position = any($1)");
    sqlx::query(&statement).bind(positions).fetch_all(pool).await?.iter().map(read).collect()
}

/// The log's newest position.
pub async fn head(pool: &PgPool) -> Result<Position, Error> {
    let head: Option<Position> =
        sqlx::query_scalar("select head from batch order by batch_no desc limit 1")
            .fetch_optional(pool)
            .await?;
    Ok(head.unwrap_or_default())
}

pub(crate) fn read(row: &PgRow) -> Result<LoggedEvent, Error> {
    let name: String = row.try_get("type")?;
    let word: Option<String> = row.try_get("word")?;
    let mut data = match row.try_get::<Option<Value>, _>("data")? {
        Some(Value::Object(fields)) => fields,
        Some(_) | None => Map::new(),
    };
    if let Some(word) = word {
        let key = if name.starts_with("action_") { "action" } else { "source" };
        data.insert(key.to_owned(), Value::String(word));
    }
    if let Some(idle_ms) = row.try_get::<Option<i32>, _>("idle_ms")? {
        data.insert("idle_ms".to_owned(), idle_ms.into());
    }
    if let Some(Value::Object(detail)) = row.try_get::<Option<Value>, _>("detail")? {
        data.extend(detail);
    }
    Ok(LoggedEvent {
        position: row.try_get("position")?,
        name,
        user_id: parsed(row, "user_id")?,
        sequence: row.try_get("sequence")?,
        session_id: row.try_get("session_id")?,
        from_status: parsed(row, "from_status")?,
        to_status: parsed(row, "to_status")?,
        occurred_at: row.try_get("occurred_at")?,
        recorded_at: row.try_get("recorded_at")?,
        reason: parsed(row, "reason")?,
        actor: parsed(row, "actor")?,
        data,
    })
}

pub(crate) fn parsed<T: std::str::FromStr>(row: &PgRow, column: &str) -> Result<Option<T>, Error> {
    let text: Option<&str> = row.try_get(column)?;
    let parse =
        |text: &str| text.parse().map_err(|_| Error::Undecodable(format!("{column} of an event")));
    text.map(parse).transpose()
}

/// A user's status at a past instant, as the log has it.
#[derive(Debug, Clone, PartialEq)]
pub struct AsOf {
    /// The status.
    pub status: Status,
    /// When it began.
    pub since: Timestamp,
    /// Latest sign of life among the transitions; plain heartbeats are not looked through.
    pub last_seen: Option<Timestamp>,
    /// Whether others were shown `offline`.
    pub invisible: bool,
}

/// The status of a user at `at`, of what happened by then and was known when the log stood at
/// `known` (none: now); none before the user's first event.
pub async fn as_of(
    pool: &PgPool,
    user: UserNo,
    at: Timestamp,
    known: Option<Position>,
) -> Result<Option<AsOf>, Error> {
    let statement = "with own as (
            select occurred_at, position, type, actor_no, data
              from event
             where class = 'T' and user_no = $1 and occurred_at <= $2 and position <= $3)
        select s.status::text as status, s.from_at as since,
               (select max(occurred_at) from own
                   where type in ('session_opened', 'session_resumed')
                      or (type = 'activity_changed' and actor_no is not null))
                   as last_seen,
               coalesce((select (data ->> 'invisible')::boolean from own
                   where type = 'visibility_changed' order by position desc limit 1), false)
                   as invisible
          from fold_spans(array[$1], $3, false) s
         where s.from_at <= $2 order by s.from_at desc limit 1";
    let query = sqlx::query(statement).bind(user.0).bind(at);
    let row = query.bind(known.unwrap_or(Position::MAX)).fetch_optional(pool).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(AsOf {
        status: parsed(&row, "status")?.unwrap_or_default(),
        since: row.try_get("since")?,
        last_seen: row.try_get("last_seen")?,
        invisible: row.try_get("invisible")?,
    }))
}

/// A session that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedSession {
    /// Whose it was.
    pub user_no: UserNo,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// The event that ended it.
    pub position: Position,
}

/// What the database knows of a session that this node does not.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionFound {
    /// Live, opened by another node.
    Live(UserNo),
    /// Over.
    Ended(EndedSession),
}

/// Looks a session up.
pub async fn session(pool: &PgPool, session: SessionId) -> Result<Option<SessionFound>, Error> {
    let row = sqlx::query(
        "select user_no, null::timestamptz as ended_at, null::text as reason, 0::bigint as position
           from live_session where session_id = $1
         union all
         select user_no, ended_at, reason::text, position
           from ended_session where session_id = $1",
    )
    .bind(session)
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let user_no = UserNo(row.try_get("user_no")?);
    let (ended_at, reason) = (row.try_get("ended_at")?, parsed(&row, "reason")?);
    let (Some(ended_at), Some(reason)) = (ended_at, reason) else {
        return Ok(Some(SessionFound::Live(user_no)));
    };
    let position = row.try_get("position")?;
    Ok(Some(SessionFound::Ended(EndedSession { user_no, ended_at, reason, position })))
}

/// Whose that session is: live, over, or imported and not ended yet.
pub async fn session_owner(pool: &PgPool, session: SessionId) -> Result<Option<UserNo>, Error> {
    let owner: Option<i64> = sqlx::query_scalar(
        "select user_no from live_session where session_id = $1
         union all
         select user_no from ended_session where session_id = $1
         union all
         select user_no from imported_session where session_id = $1 limit 1",
    )
    .bind(session)
    .fetch_optional(pool)
    .await?;
    Ok(owner.map(UserNo))
}

/// What the client said of its device at login, of each live session of a user.
pub async fn devices(
    pool: &PgPool,
    user: UserNo,
) -> Result<Vec<(SessionId, Position, Option<Value>)>, Error> {
    let rows = sqlx::query_as(
        "select l.session_id, l.opened_position, d.detail from live_session l
         left join detail d on d.position = l.opened_position
         where l.user_no = $1 order by l.opened_position",
    )
    .bind(user.0)
    .fetch_all(pool)
    .await?;
    Ok(rows)
}

/// What tokens last called these users, where a login said so. Opaque to the log: it is kept apart
/// with that login's details, and goes with them.
pub async fn usernames(pool: &PgPool, users: &[UserNo]) -> Result<Vec<(UserNo, String)>, Error> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "select distinct on (user_no) user_no, detail ->> 'username' from detail
          where user_no = any($1) and jsonb_typeof(detail -> 'username') = 'string'
          order by user_no, position desc",
    )
    .bind(users.iter().map(|user| user.0).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(user, name)| (UserNo(user), name)).collect())
}

/// The event that answered a guard's key, if it is at most a day old, and how many events the same
/// command made after it.
pub async fn guard_answer(
    pool: &PgPool,
    user: UserNo,
    key: &str,
) -> Result<Option<(LoggedEvent, i64)>, Error> {
    let found: Option<(Position, i32)> =
        sqlx::query_as("select position, followers from guard_key where user_no = $1 and key = $2")
            .bind(user.0)
            .bind(key)
            .fetch_optional(pool)
            .await?;
    let Some((position, followers)) = found else { return Ok(None) };
    let event = at_position(pool, position).await?;
    Ok(event.map(|event| (event, followers.into())))
}

/// Events of users already imported from elsewhere: (session, name, `occurred_at`).
pub async fn imported(
    pool: &PgPool,
    user: UserNo,
) -> Result<Vec<(SessionId, String, Timestamp)>, Error> {
    let rows = sqlx::query_as(
        // Imported heartbeats have no tree to walk; they stand among the user's other lines.
        "with t as (select position, session_id, type, occurred_at from event
                     where class = 'T' and user_no = $1 and data ? 'imported')
         select session_id, type::text, occurred_at from t
         union all
         select session_id, type::text, occurred_at from event
          where class = 'H' and user_no = $1 and data ? 'imported'
            and position between (select min(position) from t) and (select max(position) from t)",
    )
    .bind(user.0)
    .fetch_all(pool)
    .await?;
    Ok(rows)
}
