//! Inconsistencies put in by hand are flagged; honest load, however it races, flags nothing.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{Acquire, Executor};
use tests::{Client, World, eventually, fold, within};

/// Within this an inconsistency is to be flagged.
pub(crate) const FLAGGED_MAX: Duration = Duration::from_secs(30);

/// Writes past everything that guards the database, as its superuser can.
pub(crate) async fn by_hand(world: &World, statements: &str) {
    let mut connection = world.pool.acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    transaction.execute("set local session_replication_role = replica").await.unwrap();
    transaction.execute("select pg_advisory_xact_lock(append_lock_key())").await.unwrap();
    transaction.execute(statements).await.unwrap();
    transaction.commit().await.unwrap();
}

/// What the checks that run all the time say.
pub(crate) async fn findings(world: &World) -> Vec<Value> {
    let answer = world.auditor().get("/v1/health/consistency").await.expect(200);
    answer["findings"].as_array().unwrap().clone()
}

/// The finding of that check about that user, once it is there.
pub(crate) async fn flagged(world: &World, check: &str, user: Option<&str>) -> Value {
    let mut found = Value::Null;
    let what = format!("{check} of {user:?} is flagged");
    within(FLAGGED_MAX, &what, async || {
        let all = findings(world).await;
        let ours =
            |finding: &&Value| finding["check"] == check && finding["user_id"].as_str() == user;
        found = all.iter().find(ours).cloned().unwrap_or_default();
        !found.is_null()
    })
    .await;
    found
}

/// The positions of a user's transitions of that type.
async fn positions(world: &World, user: &str, name: &str) -> Vec<i64> {
    sqlx::query_scalar(
        "select position from event join account using (user_no)
          where user_id = $1 and type::text = $2 and class = 'T' order by position",
    )
    .bind(user)
    .bind(name)
    .fetch_all(&world.pool)
    .await
    .unwrap()
}

/// An inconsistency: its check, the event that it must name, and what puts it in. `U` is the
/// user's number.
const BROKEN: &[(&str, &str, &str)] = &[
    ("online_without_session", "session_opened", "delete from live_session where user_no = U"),
    (
        "offline_with_session",
        "session_opened",
        "update current_status set status = 'offline' where user_no = U",
    ),
    (
        "overdue_lease",
        "session_opened",
        "update live_session set last_seen = last_seen - interval '1 hour',
                check_at = check_at + interval '1 day' where user_no = U",
    ),
    (
        "unwatched_deadline",
        "session_opened",
        "update live_session set check_at = check_at + interval '1 day' where user_no = U",
    ),
    (
        "present_unlike_log",
        "claim_set",
        "update current_status set since = since - interval '1 hour' where user_no = U",
    ),
    (
        "session_unlike_log",
        "session_opened",
        "update live_session set active = not active where user_no = U",
    ),
    ("sequence", "claim_set", "delete from event where user_no = U and type = 'claim_cleared'"),
    (
        "event_unlike_rules",
        "claim_set",
        "update event set to_status = 'dnd' where position =
            (select max(position) from event where user_no = U and type = 'claim_set')",
    ),
    (
        "event_unreadable",
        "claim_set",
        "update event set data = '{\"status\": 7}' where position =
            (select max(position) from event where user_no = U and type = 'claim_set')",
    ),
    (
        "history_backwards",
        "claim_set",
        "update event set occurred_at = occurred_at - interval '1 hour' where position =
            (select max(position) from event where user_no = U and type = 'claim_set')",
    ),
    (
        "recorded_backwards",
        "session_opened",
        "update event set recorded_at = recorded_at - interval '1 day'
          where user_no = U and type = 'session_opened'",
    ),
    (
        "recorded_early",
        "claim_set",
        "update event set occurred_at = recorded_at + interval '1 day' where position =
            (select max(position) from event where user_no = U and type = 'claim_set')",
    ),
    (
        "position_twice",
        "claim_set",
        "insert into event (position, class, type, user_no, sequence, occurred_at, recorded_at,
                from_status, to_status, word_no, data)
         select position, class, type, user_no, sequence + 1, occurred_at, recorded_at, to_status,
                to_status, word_no, data from event
          where user_no = U order by sequence desc limit 1",
    ),
    ("end_forgotten", "session_closed", "delete from ended_session where user_no = U"),
    (
        "orphan",
        "claim_set",
        "insert into guard_key (user_no, key, position, followers, recorded_at)
         select user_no, 'k', position, 0, recorded_at from event
          where user_no = U order by sequence desc limit 1",
    ),
    (
        "span_overlap",
        "claim_set",
        "alter table status_span_1 drop constraint status_span_1_no_overlap;
         update status_span_1 set to_at = to_at + interval '1 hour' where user_no = U
            and to_at = (select max(to_at) from status_span_1 where user_no = U)",
    ),
    (
        "span_hole",
        "claim_set",
        "delete from status_span_1 where user_no = U and to_at =
            (select max(to_at) from status_span_1 where user_no = U)",
    ),
    (
        "span_end",
        "claim_set",
        "update status_span_1 set status = 'away' where user_no = U and to_at is null",
    ),
    (
        "span_unlike_log",
        "session_opened",
        "update status_span_1 set from_type = 'claim_set'
          where user_no = U and from_type = 'session_opened'",
    ),
    (
        "session_span_unlike_log",
        "session_closed",
        "update session_span_1 set reason = 'admin_reset' where user_no = U and reason is not null",
    ),
    (
        "daily_unlike_log",
        "claim_set",
        "insert into status_daily_1 values (U, '2020-01-01', 5, 0, 0, 0)",
    ),
    (
        "dead_letter",
        "session_opened",
        "insert into dead_letter (view, version, position, user_no, sqlstate, error)
         select 'session_span', 1, min(position), U, '23505', 'by hand' from event
          where user_no = U",
    ),
    (
        "position_beyond_head",
        "",
        "insert into event (position, class, type, user_no, sequence, session_id, occurred_at,
                recorded_at, from_status, to_status, word_no, data)
         select position + 1000000, class, type, user_no, sequence + 1, session_id, occurred_at,
                recorded_at, to_status, to_status, word_no, data from event
          where user_no = U order by sequence desc limit 1",
    ),
];

/// Tables that are put back as they were.
const TABLES: [&str; 10] = [
    "event",
    "current_status",
    "live_session",
    "ended_session",
    "guard_key",
    "dead_letter",
    "status_span_1",
    "session_span_1",
    "occupancy_1",
    "status_daily_1",
];

/// Generated columns cannot be put back.
const SPAN_COLUMNS: &str = "user_no, from_at, to_at, status, from_position, from_type, from_reason,
    to_position, to_type, to_reason";

/// A day's work: a login, another that ends, three changes of a claim.
async fn a_day(user: &Client) {
    user.login().await;
    let second = user.login().await;
    let claim = async |status: &str| {
        let body = json!({ "status": status });
        let path = format!("/v1/users/{}/claims/manual", user_id(user));
        user.put(&path, body).await.expect(200);
    };
    claim("busy").await;
    user.delete(&format!("/v1/users/{}/claims/manual", user_id(user))).await.expect(200);
    user.logout(&second).await.expect(200);
    claim("dnd").await;
    claim("busy").await;
}

/// Whose token it is: the second part of it says so.
fn user_id(client: &Client) -> String {
    let token = client.token.as_deref().unwrap();
    let payload = token.split('.').nth(1).unwrap();
    let bytes = base64_url(payload);
    serde_json::from_slice::<Value>(&bytes).unwrap()["sub"].as_str().unwrap().to_owned()
}

fn base64_url(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in text.bytes() {
        bits = (bits << 6) | DIGITS.iter().position(|known| *known == digit).unwrap() as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_inconsistency_is_flagged_with_its_person_and_goes_when_it_is_undone() {
    let world = World::start().await;
    for (check, ..) in BROKEN {
        a_day(&world.user(check)).await;
    }
    fold::caught_up(&world.pool).await;
    for table in TABLES {
        by_hand(&world, &format!("create table kept_{table} as select * from {table}")).await;
    }
    for (check, _, statement) in BROKEN {
        let number: i64 = sqlx::query_scalar("select user_no from account where user_id = $1")
            .bind(check)
            .fetch_one(&world.pool)
            .await
            .unwrap();
        let words = statement.split_inclusive(|c: char| !c.is_ascii_alphabetic());
        let numbered = |part: &str| match part.strip_prefix('U') {
            Some(rest) if !rest.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                format!("{number}{rest}")
            }
            Some(_) | None => part.to_owned(),
        };
        by_hand(&world, &words.map(numbered).collect::<String>()).await;
    }
    by_hand(&world, "update occupancy_1 set busy = busy + 3, online = online - 2").await;
    for (check, event, _) in BROKEN {
        let finding = flagged(&world, check, Some(check)).await;
        let named: Vec<i64> = serde_json::from_value(finding["positions"].clone()).unwrap();
        let known = positions(&world, check, event).await;
        assert!(
            event.is_empty() || known.iter().any(|position| named.contains(position)),
            "{finding}: one of {known:?}"
        );
        for member in ["expected", "found", "advice", "since", "severity"] {
            assert!(!finding[member].as_str().unwrap().is_empty(), "{member}: {finding}");
        }
        assert_ne!(finding["expected"], finding["found"], "{finding}");
    }
    let sums = flagged(&world, "occupancy_unlike_present", None).await;
    assert_eq!(sums["view"], "occupancy");
    let health = world.user("ana").get("/v1/health").await.expect(200);
    assert_eq!(health["status"], "red");
    assert!(health["findings"].as_u64().unwrap() > BROKEN.len() as u64);
    let metrics = world.nobody().get("/metrics").await.text;
    assert!(metrics.contains(r#"rollcall_findings{check="span_overlap"}"#));
    undo(&world).await;
    let what = "all is consistent again";
    within(FLAGGED_MAX, what, async || findings(&world).await.is_empty()).await;
    eventually("health is green", async || {
        world.user("ana").get("/v1/health").await.expect(200)["status"] == "ok"
    })
    .await;
    world.finish().await;
}

/// Three sessions of the user `old`, imported.
async fn three_old_days(world: &World) {
    let mut lines = String::new();
    for day in 1..4 {
        for (kind, hour) in [("session_opened", 8), ("session_closed", 9)] {
            let line = json!({ "type": kind, "user_id": "old", "occurred_at":
                format!("2025-01-0{day}T0{hour}:00:00Z"),
                "session_id": format!("00000000-0000-4000-8000-00000000000{day}") });
            lines.extend([line.to_string(), "\n".to_owned()]);
        }
    }
    let imported = world.admin().post_raw("/v1/import", "application/x-ndjson", lines).await;
    assert_eq!(imported.expect(200)["imported"], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn instants_that_the_log_does_not_know_are_flagged_and_so_are_statuses_that_do_not_follow() {
    let world = World::start().await;
    let broken = [
        (
            "tomorrow",
            "session_unlike_log",
            "update live_session set
            last_seen = last_seen + interval '1 day', check_at = check_at + interval '1 day'",
        ),
        (
            "later",
            "session_unlike_log",
            "update live_session set
            last_seen = last_seen + interval '20 s'",
        ),
        (
            "earlier",
            "session_unlike_log",
            "update live_session set
            last_seen = last_seen - interval '1 s', check_at = check_at - interval '1 s'",
        ),
        (
            "present",
            "present_unlike_log",
            "update current_status set
            last_seen = since + interval '1 day'",
        ),
    ];
    for (user, ..) in broken {
        let session = world.user(user).login().await;
        world.user(user).beat(&session).await.expect(200);
    }
    a_day(&world.user("own")).await;
    three_old_days(&world).await;
    world.advance_s(30).await;
    fold::caught_up(&world.pool).await;
    let of = |user: &str| format!("(select user_no from account where user_id = '{user}')");
    for (user, _, statement) in broken {
        by_hand(&world, &format!("{statement} where user_no = {}", of(user))).await;
    }
    for user in ["own", "old"] {
        let changed = "update event set to_status = 'away' where sequence = 3 and user_no =";
        by_hand(&world, &format!("{changed} {}", of(user))).await;
    }
    for (user, check, _) in broken {
        flagged(&world, check, Some(user)).await;
    }
    // In whatever stretch of the log its neighbour is found, and where all of it is folded.
    for user in ["own", "old"] {
        let at = "select position from event where sequence = any ('{3,4}') and user_no =";
        let at: Vec<i64> = sqlx::query_scalar(&format!("{at} {} order by 1", of(user)))
            .fetch_all(&world.pool)
            .await
            .unwrap();
        for positions in [json!([at[0]]), json!(at)] {
            within(FLAGGED_MAX, &format!("{user}: {positions}"), async || {
                let all = findings(&world).await;
                all.iter().any(|finding| {
                    finding["check"] == "event_unlike_rules"
                        && finding["user_id"] == user
                        && finding["positions"] == positions
                })
            })
            .await;
        }
    }
    world.abandon().await;
}

async fn undo(world: &World) {
    let mut all = String::new();
    for table in TABLES {
        let (into, from) = if table == "status_span_1" {
            (format!("({SPAN_COLUMNS})"), SPAN_COLUMNS)
        } else {
            (String::new(), "*")
        };
        let insert = format!("insert into {table} {into} select {from} from kept_{table};");
        all.extend(["delete from ", table, ";", &insert]);
    }
    by_hand(world, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_racing_load_on_two_nodes_flags_nothing() {
    let world = World::with_nodes(2).await;
    let people: Vec<Client> =
        (0..16).map(|n| world.at_node(&world.user(&format!("u{n}")), n % 2)).collect();
    let service = world.service();
    let mut seen: Vec<Value> = Vec::new();
    for minute in 0..12 {
        let busy = people.iter().enumerate().map(|(n, who)| an_hour(&service, who, n + minute));
        // Five minutes pass while they are at it.
        let passing = async {
            for _ in 0..4 {
                world.advance_s(75).await;
                for node in 0..2 {
                    let auditor = world.at_node(&world.auditor(), node);
                    let found = auditor.get("/v1/health/consistency").await.expect(200);
                    seen.extend(found["findings"].as_array().unwrap().iter().cloned());
                }
            }
        };
        tokio::join!(join_all(busy), passing);
    }
    for node in 0..2 {
        let auditor = world.at_node(&world.auditor(), node);
        let fresh = auditor.get("/v1/health/consistency?fresh=true").await.expect(200);
        assert_eq!((&fresh["findings"], &fresh["complete"]), (&json!([]), &json!(true)));
        eventually("a whole round is done", async || {
            let latest = auditor.get("/v1/health/consistency").await.expect(200);
            seen.extend(latest["findings"].as_array().unwrap().iter().cloned());
            latest["complete"] == true
        })
        .await;
    }
    assert_eq!(seen, Vec::<Value>::new());
    world.finish().await;
}

/// Whatever somebody may do; sessions are left to time out, too.
async fn an_hour(service: &Client, client: &Client, n: usize) {
    let user = user_id(client);
    let session = client.login().await;
    let second = client.login_idle(if n.is_multiple_of(3) { 900_000 } else { 0 }).await;
    let status = ["away", "busy", "dnd", "online"][n % 4];
    let claim = json!({ "status": status, "ttl_ms": 40_000 });
    client.put(&format!("/v1/users/{user}/claims/manual"), claim).await.expect(200);
    for beat in 0..6 {
        let idle = if (n + beat).is_multiple_of(2) { 600_000 } else { 0 };
        let answer = client.beat_idle(&session, idle).await;
        assert!([200, 410].contains(&answer.status), "{}", answer.text);
    }
    let guard = json!({ "action": "start", "require": ["online"], "key": format!("{user}-{n}"),
        "claim": { "source": "system:timer:1", "status": "busy" } });
    let answer = service.post(&format!("/v1/users/{user}/guard"), guard).await;
    assert!([200, 409].contains(&answer.status), "{}", answer.text);
    let hide = json!({ "invisible": n.is_multiple_of(5) });
    client.put(&format!("/v1/users/{user}/visibility"), hide).await.expect(200);
    if n.is_multiple_of(4) {
        client.logout(&second).await;
    }
}
