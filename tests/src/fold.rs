//! The views, computed once more: from the log, by a fold of our own, and compared.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DurationRound, TimeDelta};
use domain::Timestamp;
use sqlx::{Connection, FromRow, PgConnection, PgPool};
use uuid::Uuid;

use crate::eventually;

/// One transition as the log has it.
#[derive(Debug, Clone, FromRow)]
pub struct Told {
    /// Whose.
    pub user_no: i64,
    /// The count of transitions.
    pub sequence: i64,
    /// Where it stands.
    pub position: i64,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// Its stored name.
    pub name: String,
    /// The status after it.
    pub to_status: String,
    /// About which session.
    pub session_id: Option<Uuid>,
    /// From elsewhere.
    pub imported: bool,
    /// Of a change of visibility.
    pub invisible: Option<bool>,
}

/// An interval: from, to, status, and the position of what began it.
pub type Span = (Timestamp, Option<Timestamp>, String, i64);

/// Everybody's transitions at or below a position.
pub async fn told(db: &mut PgConnection, upto: i64) -> BTreeMap<i64, Vec<Told>> {
    let all: Vec<Told> = sqlx::query_as(
        "select user_no, sequence, position, occurred_at, type::text as name,
                to_status::text as to_status, session_id,
                coalesce(data ? 'imported', false) as imported,
                case when type = 'visibility_changed' then (data ->> 'invisible')::boolean end
                    as invisible
           from event where class = 'T' and user_no is not null and position <= $1
          order by user_no, sequence",
    )
    .bind(upto)
    .fetch_all(db)
    .await
    .unwrap();
    let mut users: BTreeMap<i64, Vec<Told>> = BTreeMap::new();
    for event in all {
        users.entry(event.user_no).or_default().push(event);
    }
    users
}

/// One user's spans.
pub fn spans(events: &[Told], as_shown: bool) -> Vec<Span> {
    let mut events: Vec<&Told> = events.iter().collect();
    events.sort_by_key(|event| (event.occurred_at, event.sequence));
    let mut open: HashSet<Uuid> = HashSet::new();
    let mut invisible = false;
    let mut status = String::new();
    let mut spans: Vec<Span> = Vec::new();
    for event in events {
        invisible = event.invisible.unwrap_or(invisible);
        let next = if event.imported {
            let session = event.session_id.unwrap();
            if event.name == "session_opened" {
                open.insert(session);
            } else {
                open.remove(&session);
            }
            if open.is_empty() { "offline" } else { "online" }
        } else if as_shown && invisible {
            "offline"
        } else {
            &event.to_status
        };
        if next == status {
            continue;
        }
        next.clone_into(&mut status);
        // What lasted no time is no span; and what goes on as before it is no new one.
        if spans.last().is_some_and(|last| last.0 == event.occurred_at) {
            spans.pop();
        }
        match spans.last_mut() {
            Some(last) if last.2 == status => last.1 = None,
            Some(last) => {
                last.1 = Some(event.occurred_at);
                spans.push((event.occurred_at, None, status.clone(), event.position));
            }
            None => spans.push((event.occurred_at, None, status.clone(), event.position)),
        }
    }
    spans
}

/// Waits until every live view has all of the log.
pub async fn caught_up(pool: &PgPool) {
    let behind = "select exists (select from view_version v where v.state = 'live'
        and v.position < (select head from batch order by batch_no desc limit 1))";
    eventually("the views catch up", async || {
        !sqlx::query_scalar::<_, bool>(behind).fetch_one(pool).await.unwrap()
    })
    .await;
}

/// Every view is what the log up to its checkpoint folds to.
pub async fn check(pool: &PgPool) {
    let mut connection = pool.acquire().await.unwrap();
    // One snapshot: the views go on meanwhile.
    let mut snapshot = connection.begin().await.unwrap();
    sqlx::query("set transaction isolation level repeatable read, read only")
        .execute(&mut *snapshot)
        .await
        .unwrap();
    let letters = "select count(*) from dead_letter";
    let letters: i64 = sqlx::query_scalar(letters).fetch_one(&mut *snapshot).await.unwrap();
    assert_eq!(letters, 0, "events that a view could not take");
    let views: Vec<(String, i64)> =
        sqlx::query_as("select view, position from view_version where state = 'live'")
            .fetch_all(&mut *snapshot)
            .await
            .unwrap();
    for (view, position) in views {
        let users = told(&mut snapshot, position).await;
        check_view(&mut snapshot, &view, &view, &users).await;
    }
    snapshot.commit().await.unwrap();
}

/// One view, by the name of its table: the stable one or that of a version.
pub async fn check_view(
    db: &mut PgConnection,
    view: &str,
    table: &str,
    users: &BTreeMap<i64, Vec<Told>>,
) {
    match view {
        "status_span" => check_spans(db, table, users).await,
        "session_span" => check_sessions(db, table, users).await,
        "occupancy" => check_occupancy(db, table, users).await,
        "status_daily" => check_days(db, table, users).await,
        other => panic!("nobody folds {other}"),
    }
}

async fn check_spans(db: &mut PgConnection, table: &str, users: &BTreeMap<i64, Vec<Told>>) {
    let found: Vec<(i64, Timestamp, Option<Timestamp>, String, i64)> = sqlx::query_as(&format!(
        "select user_no, from_at, to_at, status::text, from_position from {table}
          order by user_no, from_at",
    ))
    .fetch_all(&mut *db)
    .await
    .unwrap();
    let mut found_of: BTreeMap<i64, Vec<Span>> = BTreeMap::new();
    for (user, from, to, status, position) in found {
        found_of.entry(user).or_default().push((from, to, status, position));
    }
    let folded: BTreeMap<i64, Vec<Span>> =
        users.iter().map(|(user, events)| (*user, spans(events, false))).collect();
    for (user, folded) in &folded {
        assert_eq!(found_of.get(user), Some(folded), "spans of user {user}");
    }
    assert_eq!(found_of.len(), folded.len(), "users with spans");
}

async fn check_sessions(db: &mut PgConnection, table: &str, users: &BTreeMap<i64, Vec<Told>>) {
    let found: Vec<(Uuid, i64, Timestamp, Option<Timestamp>, bool)> = sqlx::query_as(&format!(
        "select session_id, user_no, opened_at, ended_at, invisible from {table}",
    ))
    .fetch_all(&mut *db)
    .await
    .unwrap();
    let found: BTreeSet<_> = found.into_iter().collect();
    let mut folded = BTreeSet::new();
    for (&user, events) in users {
        for (at, opened) in events.iter().enumerate().filter(|(_, e)| e.name == "session_opened") {
            let ends = ["session_closed", "session_expired"];
            let later = &events[at + 1..];
            let end = later
                .iter()
                .position(|e| e.session_id == opened.session_id && ends.contains(&&*e.name));
            let meanwhile = &later[..end.unwrap_or(later.len())];
            let before = events[..at].iter().filter_map(|e| e.invisible).next_back();
            let hidden =
                before == Some(true) || meanwhile.iter().any(|e| e.invisible == Some(true));
            let ended = end.map(|end| later[end].occurred_at);
            folded.insert((opened.session_id.unwrap(), user, opened.occurred_at, ended, hidden));
        }
    }
    assert_eq!(found, folded, "sessions");
}

const STATUSES: [&str; 5] = ["online", "away", "busy", "dnd", "offline"];

async fn check_occupancy(db: &mut PgConnection, table: &str, users: &BTreeMap<i64, Vec<Told>>) {
    let found: Vec<(Timestamp, i64, i64, i64, i64, i64)> = sqlx::query_as(&format!(
        "select minute, online, away, busy, dnd, offline from {table}
          where (online, away, busy, dnd, offline) <> (0, 0, 0, 0, 0) order by minute",
    ))
    .fetch_all(&mut *db)
    .await
    .unwrap();
    let found: BTreeMap<Timestamp, [i64; 5]> = found
        .into_iter()
        .map(|(minute, online, away, busy, dnd, offline)| {
            (minute, [online, away, busy, dnd, offline])
        })
        .collect();
    let mut folded: BTreeMap<Timestamp, [i64; 5]> = BTreeMap::new();
    let mut count = |at: Timestamp, status: &str, people: i64| {
        let minute = at.duration_trunc(TimeDelta::minutes(1)).unwrap();
        let which = STATUSES.iter().position(|known| *known == status).unwrap();
        folded.entry(minute).or_default()[which] += people;
    };
    for events in users.values() {
        for (from, to, status, _) in spans(events, true) {
            count(from, &status, 1);
            if let Some(to) = to {
                count(to, &status, -1);
            }
        }
    }
    folded.retain(|_, counts| *counts != [0; 5]);
    assert_eq!(found, folded, "occupancy");
}

async fn check_days(db: &mut PgConnection, table: &str, users: &BTreeMap<i64, Vec<Told>>) {
    let found: Vec<(i64, i64, i64, i64, i64)> = sqlx::query_as(&format!(
        "select user_no, sum(online_us)::bigint, sum(away_us)::bigint, sum(busy_us)::bigint,
                sum(dnd_us)::bigint from {table} group by user_no order by user_no",
    ))
    .fetch_all(&mut *db)
    .await
    .unwrap();
    let too_long = format!(
        "select count(*) from {table} where online_us + away_us + busy_us + dnd_us > 86400000000"
    );
    let too_long: i64 = sqlx::query_scalar(&too_long).fetch_one(&mut *db).await.unwrap();
    assert_eq!(too_long, 0, "days of more than 24 hours");
    let open = format!("select user_no, at from {}", table.replace("daily", "daily_open"));
    let open: Vec<(i64, Timestamp)> = sqlx::query_as(&open).fetch_all(&mut *db).await.unwrap();
    let open: BTreeMap<i64, Timestamp> = open.into_iter().collect();
    let mut folded = Vec::new();
    for (user, events) in users {
        let mut sums = [0; 5];
        for (from, to, status, _) in spans(events, true) {
            let to = to.unwrap_or(open[user]).max(from);
            let which = STATUSES.iter().position(|known| *known == status).unwrap();
            sums[which] += (to - from).num_microseconds().unwrap();
        }
        if sums[..4] != [0; 4] {
            folded.push((*user, sums[0], sums[1], sums[2], sums[3]));
        }
    }
    assert_eq!(found, folded, "time in each status");
}
