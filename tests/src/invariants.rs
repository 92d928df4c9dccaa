//! What holds of every log at any time, asserted at the end of each test.

use std::collections::BTreeMap;

use domain::{Body, Event, Presence, Silences, Timestamp, UserNo, lapse};
use projections::load::{self, Loaded};
use serde_json::Value;
use sqlx::{Connection, PgConnection, PgPool};

use crate::node::TestNode;
use crate::{eventually, fold};

/// What must find nothing, and what it means if it does.
const EMPTY: &[(&str, &str)] = &[
    (
        "sequences are gapless",
        "select user_no from event where class = 'T' and user_no is not null group by user_no
         having count(*) <> max(sequence) or min(sequence) <> 1
             or count(distinct sequence) <> count(*)",
    ),
    (
        "recorded_at follows position",
        "select position from (select position, recorded_at,
                lag(recorded_at) over (order by position) as before from event) e
         where recorded_at < before",
    ),
    (
        "positions are unique, and none lies beyond the head",
        "select position from event group by position having count(*) > 1
         union all
         select position from event
          where position > (select head from batch order by batch_no desc limit 1)",
    ),
    (
        "sequence follows position",
        "select position from (select position, sequence,
                lag(sequence) over (partition by user_no order by position) as before
                from event where class = 'T' and user_no is not null) e
         where sequence <> coalesce(before, 0) + 1",
    ),
    (
        "nothing happened after it was recorded",
        "select position from event where occurred_at > recorded_at",
    ),
    (
        "a user's own history never runs backwards",
        "select position from (select position, occurred_at,
                lag(occurred_at) over (partition by user_no order by sequence) as before
                from event where class = 'T' and user_no is not null
                 and not coalesce(data ? 'imported', false)) e
         where occurred_at < before",
    ),
    (
        "each own event begins with the status that the previous one ended with",
        "select position from (select position, from_status,
                lag(to_status) over (partition by user_no order by sequence) as before
                from event where class = 'T' and user_no is not null
                 and not coalesce(data ? 'imported', false)) e
         where from_status <> coalesce(before, 'offline')",
    ),
    (
        "so does each imported one, among the imported",
        "select position from (select position, from_status,
                lag(to_status) over (partition by user_no order by sequence) as before
                from event where class = 'T' and user_no is not null and data ? 'imported') e
         where from_status <> coalesce(before, 'offline')",
    ),
    (
        "a live session was not ended",
        "select session_id from live_session join ended_session using (session_id)",
    ),
    (
        "the ended sessions are those that the log has ended",
        "select session_id from ended_session full join (select distinct session_id from event
                where type in ('session_closed', 'session_expired')) e using (session_id)
         where ended_session.user_no is null or e.session_id is null",
    ),
    (
        "the names held for imported sessions are those of the ones that have not ended",
        "select session_id from imported_session full join (select distinct session_id from event
                where type = 'session_opened' and data ? 'imported' and session_id not in
                      (select session_id from ended_session)) e using (session_id)
         where imported_session.user_no is null or e.session_id is null",
    ),
    (
        "a session is opened once, whoever's it is",
        "select session_id from event where type = 'session_opened'
          group by session_id having count(*) > 1",
    ),
    (
        "the counted live sessions are the live sessions",
        "select s.user_no from current_status s where live_sessions <>
                (select count(*) from live_session l where l.user_no = s.user_no)",
    ),
    (
        "the log holds details of nothing but its own events",
        "select d.position from detail d left join event e using (position)
         where e.position is null",
    ),
];

/// Panics where an invariant is broken.
pub async fn check(pool: &PgPool, nodes: &[TestNode]) {
    let mut connection = pool.acquire().await.unwrap();
    // One snapshot: the sweepers go on meanwhile.
    let mut snapshot = connection.begin().await.unwrap();
    sqlx::query("set transaction isolation level repeatable read, read only")
        .execute(&mut *snapshot)
        .await
        .unwrap();
    for (invariant, query) in EMPTY {
        let query = format!("select count(*) from ({query}) found");
        let found: i64 = sqlx::query_scalar(&query).fetch_one(&mut *snapshot).await.unwrap();
        assert_eq!(found, 0, "broken: {invariant}");
    }
    check_fold(&mut snapshot).await;
    snapshot.commit().await.unwrap();
    drop(connection);
    for (index, node) in nodes.iter().enumerate() {
        let what = format!("the roster of node {index} equals the database");
        eventually(&what, async || roster_is_true(pool, node, nodes.len() == 1).await).await;
    }
    if !nodes.is_empty() {
        fold::caught_up(pool).await;
    }
    fold::check(pool).await;
}

/// The present equals the fold of the log, and nobody's time was cut short.
async fn check_fold(connection: &mut PgConnection) {
    let silences = load::silences(&mut *connection).await.unwrap();
    let changes: i64 =
        sqlx::query_scalar("select count(*) from event where type = 'policy_changed'")
            .fetch_one(&mut *connection)
            .await
            .unwrap();
    // A heartbeat takes over the lease of the policy then in force, which only `live_session` has.
    let leases_known = changes <= 1;
    let folded = fold_present(connection, leases_known.then_some(&silences)).await;
    let users: Vec<UserNo> = folded.keys().copied().collect();
    let stored = load::by_number(&mut *connection, &users).await.unwrap();
    let rows: i64 = sqlx::query_scalar("select count(*) from current_status")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    assert_eq!(rows as usize, folded.len(), "one row a user of the log");
    for user in stored {
        let (position, mut fold) = folded[&user.user_no].clone();
        let mut state = user.state;
        for claim in &mut state.claims {
            claim.text = None;
        }
        // Of a client that contradicts itself (active at login, and seconds later idle for minutes)
        // it depends on how events share a command which of its words is kept.
        (state.last_activity, fold.last_activity) = (None, None);
        if !leases_known {
            for session in fold.sessions.iter_mut().chain(&mut state.sessions) {
                session.lease_ms = 0;
            }
        }
        assert_eq!(user.position, position, "the position of {}", user.user_id);
        assert_eq!(state, fold, "current_status (left) and the fold of {}", user.user_id);
    }
}

/// Everybody's log folded by `domain` alone, with the position of the last transition.
pub async fn fold_present(
    connection: &mut PgConnection,
    leases: Option<&Silences>,
) -> BTreeMap<UserNo, (i64, Presence)> {
    let events: Vec<(i64, i64, Value)> = sqlx::query_as(
        "select aggregate_id::bigint, (metadata ->> 'position')::bigint, payload::jsonb
           from presence_events
         union all
         select user_no, position, jsonb_build_object('type', 'heartbeat', 'at', occurred_at,
                'session', session_id, 'idle_ms', idle_ms,
                'imported', coalesce((data ->> 'imported')::boolean, false))
           from event where class = 'H'
          order by 1, 2",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let mut users: BTreeMap<UserNo, (i64, Presence)> = BTreeMap::new();
    for (user_no, position, payload) in events {
        let event: Event = serde_json::from_value(payload.clone())
            .unwrap_or_else(|error| panic!("{error}: {payload}"));
        let (last, state) = users.entry(UserNo(user_no)).or_default();
        if let Some(silences) = leases {
            check_deadline(state, &event, silences);
        }
        if event.body.is_transition() {
            *last = position;
        }
        state.apply(&event);
    }
    users
}

/// A session expires at the end of its lease, and at no other instant.
fn check_deadline(before: &Presence, event: &Event, silences: &Silences) {
    if let Body::SessionExpired { session, imported: false, .. } = &event.body {
        let live = before.session(*session).expect("what expires was live");
        assert_eq!(event.at, lapse::lease_end(live, silences), "the deadline of {session}");
    }
    if let Body::ClaimExpired { source } = &event.body {
        let ends: Option<Timestamp> = before.claim(source).and_then(|claim| claim.expires_at);
        assert_eq!(Some(event.at), ends, "the end of claim {source}");
    }
}

/// Whether a node's memory is what the database has. Other nodes' heartbeats do not reach it.
async fn roster_is_true(pool: &PgPool, node: &TestNode, alone: bool) -> bool {
    let head: Option<i64> =
        sqlx::query_scalar("select head from batch order by batch_no desc limit 1")
            .fetch_optional(pool)
            .await
            .unwrap();
    if !node.realm().reached(head.unwrap_or(0)).await {
        return false;
    }
    let users: Vec<i64> =
        sqlx::query_scalar("select user_no from current_status").fetch_all(pool).await.unwrap();
    let users: Vec<UserNo> = users.into_iter().map(UserNo).collect();
    let stored = load::by_number(pool, &users).await.unwrap();
    let roster = node.realm().roster();
    roster.users_count() == stored.len()
        && stored.into_iter().all(|stored| {
            let same = |entry: &projections::roster::Entry| {
                let known = Loaded {
                    user_no: stored.user_no,
                    user_id: entry.user_id.clone(),
                    state: entry.state.clone(),
                    position: entry.position,
                };
                comparable(known, alone) == comparable(stored.clone(), alone)
            };
            roster.read(stored.user_no, same).unwrap_or(false)
        })
}

fn comparable(user: Loaded, alone: bool) -> (String, i64, Presence) {
    let Loaded { user_id, mut state, position, .. } = user;
    if !alone {
        for session in &mut state.sessions {
            (session.last_seen, session.idle_ms) = (session.opened_at, 0);
            session.lease_ms = 0;
        }
    }
    (user_id.to_string(), position, state)
}
