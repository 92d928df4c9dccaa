//! Messages: sent once, kept for each receiver until acknowledged.
//!
//! A delivery is one message for one receiver. Deliveries are numbered in the order in which they
//! were committed, over all nodes: whoever follows `delivery_no > n` misses none, and what one
//! sender sent first comes first.

use std::collections::HashSet;
use std::str::FromStr;
use std::time::Duration;

use domain::{GroupName, Timestamp, UserId, UserNo};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::Error;

/// Messages that may wait for one receiver.
pub const WAITING_MAX: u32 = 1_100;
/// As long as fewer wait, people may send, too: nobody keeps from a user what systems have to say.
pub const WAITING_FROM_PEOPLE_MAX: u32 = 1_000;
/// How long a message waits to be acknowledged.
pub const KEPT_FOR: Duration = Duration::from_hours(7 * 24);
/// How long what waits for no receiver stays for nodes that were cut off.
pub const LIVE_KEPT_FOR: Duration = Duration::from_hours(1);
/// Longest text of a message, in bytes.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Longest title, in characters.
pub const TITLE_LENGTH_MAX: usize = 256;
/// Messages, and deliveries, forgotten by one statement.
const FORGOTTEN_AT_ONCE: i32 = 1_000;
/// Where nodes tell each other that there is mail.
pub(crate) const CHANNEL: &str = "rollcall_mail";

/// What kind of message. Stored names are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From one to another.
    Message,
    /// From a system to somebody.
    Notification,
    /// To everybody who is live now; waits for nobody.
    Broadcast,
    /// To the members of a group.
    Group,
}

impl Kind {
    /// The stored name, which is that of the frame, too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Notification => "notification",
            Self::Broadcast => "broadcast",
            Self::Group => "group",
        }
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Message, Self::Notification, Self::Broadcast, Self::Group]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| Error::Undecodable("kind of a message".to_owned()))
    }
}

/// To whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// One user, from another.
    Person(UserNo),
    /// One user, from a system.
    Notified(UserNo),
    /// The members that the group has now, the sender too where it is one: for its other devices;
    /// and whoever is live and listens to the group.
    Group(GroupName),
    /// Everybody who is live now.
    Everybody,
}

/// A message to be sent.
#[derive(Debug, Clone)]
pub struct Draft {
    /// To whom.
    pub to: To,
    /// From whom; none: a system.
    pub sender: Option<UserNo>,
    /// A headline.
    pub title: Option<String>,
    /// The text: 1 to [`TEXT_BYTES_MAX`] bytes.
    pub body: String,
}

impl Draft {
    /// How many may wait for a receiver who still gets it.
    pub fn waiting_max(&self) -> u32 {
        if self.sender.is_some() { WAITING_FROM_PEOPLE_MAX } else { WAITING_MAX }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// The message's name: version 7.
    pub id: Uuid,
    /// For how many it waits; none, if it is for those who are live alone.
    pub delivered: u32,
    /// How many have too many waiting already, and will not have this one.
    pub refused: u32,
}

impl Posted {
    /// Whether it was sent at all: not where everybody has too many waiting.
    pub fn is_sent(&self) -> bool {
        self.delivered > 0 || self.refused == 0
    }
}

/// A message as its receivers have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its name: what is acknowledged.
    pub id: Uuid,
    /// What kind.
    pub kind: Kind,
    /// From whom, where that is known.
    pub sender: Option<UserId>,
    /// To which group.
    pub group: Option<GroupName>,
    /// A headline.
    pub title: Option<String>,
    /// The text.
    pub body: String,
    /// When it was taken in, by the database's clock.
    pub created_at: Timestamp,
}

/// One message for one receiver, without its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Its place among all deliveries.
    pub delivery_no: i64,
    /// Which message.
    pub message: Uuid,
    /// For whom; none: whoever is live now.
    pub receiver: Option<UserNo>,
}

/// Sends. Committed when it answers, where [`Posted::is_sent`]; else nothing was written.
pub async fn post(pool: &PgPool, draft: &Draft) -> Result<Posted, Error> {
    let id = Uuid::now_v7();
    let (kind, receiver, group) = match &draft.to {
        To::Person(user) => (Kind::Message, Some(user.0), None),
        To::Notified(user) => (Kind::Notification, Some(user.0), None),
        To::Group(group) => (Kind::Group, None, Some(group.as_str())),
        To::Everybody => (Kind::Broadcast, None, None),
    };
    let waiting_max = draft.waiting_max();
    let row = sqlx::query(
        "select delivered, refused
           from post_message($1, $2, $3, $4, $5, $6, $7, $8 * interval '1 second',
                $9 * interval '1 second', $10)",
    )
    .bind(id)
    .bind(kind.as_str())
    .bind(draft.sender.map(|sender| sender.0))
    .bind(receiver)
    .bind(group)
    .bind(draft.title.as_deref())
    .bind(&draft.body)
    .bind(KEPT_FOR.as_secs() as i64)
    .bind(LIVE_KEPT_FOR.as_secs() as i64)
    .bind(waiting_max as i32)
    .fetch_one(pool)
    .await?;
    let count = |column| row.try_get::<i32, _>(column).map(|count| count as u32);
    Ok(Posted { id, delivered: count("delivered")?, refused: count("refused")? })
}

/// What waits for a user above a delivery, oldest first.
pub async fn pending(
    pool: &PgPool,
    receiver: UserNo,
    after: i64,
    limit: usize,
) -> Result<Vec<(i64, Message)>, Error> {
    let rows = sqlx::query(
        "select d.delivery_no, m.message_id, m.kind::text as kind, m.group_name, m.title, m.body,
                m.created_at, a.user_id as sender
           from delivery d
           join message m using (message_id)
           left join account a on a.user_no = m.sender_no
          where d.receiver_no = $1 and d.delivery_no > $2 and m.keep_until > log_clock()
          order by d.delivery_no limit $3",
    )
    .bind(receiver.0)
    .bind(after)
    .bind(limit as i64)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("delivery_no")?, read(row)?))).collect()
}

/// A user has these; how many of them were waiting. Others, and another's, are passed over.
pub async fn acknowledge(pool: &PgPool, receiver: UserNo, messages: &[Uuid]) -> Result<u32, Error> {
    let statement = "select acknowledge_messages($1, $2, $3 * interval '1 second')";
    let count: i32 = sqlx::query_scalar(statement)
        .bind(receiver.0)
        .bind(messages)
        .bind(LIVE_KEPT_FOR.as_secs() as i64)
        .fetch_one(pool)
        .await?;
    Ok(count as u32)
}

/// The newest delivery so far.
pub async fn newest(pool: &PgPool) -> Result<i64, Error> {
    let newest: Option<i64> =
        sqlx::query_scalar("select max(delivery_no) from delivery").fetch_one(pool).await?;
    Ok(newest.unwrap_or_default())
}

/// Deliveries of everybody above a number, in order. Those acknowledged meanwhile are not there.
pub async fn follow(pool: &PgPool, after: i64, limit: usize) -> Result<Vec<Due>, Error> {
    let rows: Vec<(i64, Uuid, Option<i64>)> = sqlx::query_as(
        "select delivery_no, message_id, receiver_no from delivery
          where delivery_no > $1 order by delivery_no limit $2",
    )
    .bind(after)
    .bind(limit as i64)
    .fetch_all(pool)
    .await?;
    let due = |(delivery_no, message, receiver): (i64, Uuid, Option<i64>)| Due {
        delivery_no,
        message,
        receiver: receiver.map(UserNo),
    };
    Ok(rows.into_iter().map(due).collect())
}

/// Messages by name; those that are gone are left out.
pub async fn texts(pool: &PgPool, messages: &[Uuid]) -> Result<Vec<Message>, Error> {
    let rows = sqlx::query(
        "select m.message_id, m.kind::text as kind, m.group_name, m.title, m.body, m.created_at,
                a.user_id as sender
           from message m left join account a on a.user_no = m.sender_no
          where m.message_id = any($1)",
    )
    .bind(messages)
    .fetch_all(pool)
    .await?;
    rows.iter().map(read).collect()
}

/// Those among `users` for whom a message waits.
pub async fn waits_for(
    pool: &PgPool,
    message: Uuid,
    users: &[UserNo],
) -> Result<HashSet<UserNo>, Error> {
    let users: Vec<i64> = users.iter().map(|user| user.0).collect();
    let statement =
        "select receiver_no from delivery where message_id = $1 and receiver_no = any($2)";
    let query = sqlx::query_scalar(statement).bind(message).bind(users);
    let found: Vec<i64> = query.fetch_all(pool).await?;
    Ok(found.into_iter().map(UserNo).collect())
}

/// Tells every node that there is mail. Apart from sending: whoever commits a notification waits
/// for all others who do.
pub(crate) async fn tell(pool: &PgPool) -> Result<(), Error> {
    sqlx::query("select pg_notify($1, '')").bind(CHANNEL).execute(pool).await?;
    Ok(())
}

/// Forgets those whose time is over.
pub async fn forget_old(pool: &PgPool) -> Result<(), Error> {
    loop {
        let more: bool = sqlx::query_scalar("select forget_messages($1)")
            .bind(FORGOTTEN_AT_ONCE)
            .fetch_one(pool)
            .await?;
        if !more {
            return Ok(());
        }
    }
}

fn read(row: &PgRow) -> Result<Message, Error> {
    Ok(Message {
        id: row.try_get("message_id")?,
        kind: row.try_get::<&str, _>("kind")?.parse()?,
        sender: parsed(row, "sender")?,
        group: parsed(row, "group_name")?,
        title: row.try_get("title")?,
        body: row.try_get("body")?,
        created_at: row.try_get("created_at")?,
    })
}

fn parsed<T: FromStr>(row: &PgRow, column: &str) -> Result<Option<T>, Error> {
    let text: Option<&str> = row.try_get(column)?;
    let parse =
        |text: &str| text.parse().map_err(|_| Error::Undecodable(format!("{column} of a message")));
    text.map(parse).transpose()
}
