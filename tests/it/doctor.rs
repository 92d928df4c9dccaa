//! `rollcall doctor`, the real binary, beside running nodes.

use domain::Policy;
use serde_json::{Value, json};
use sqlx::Executor;
use tests::process::{Ran, run};
use tests::world::Options;
use tests::{World, eventually, fold};

use crate::health::by_hand;

async fn doctor<const N: usize>(world: &World, args: [&str; N]) -> Ran {
    let mut all = vec!["doctor", "--database-url", &world.database.url];
    all.extend(args);
    Ran::of(tests::process::rollcall().args(all)).await
}

fn report(ran: &Ran) -> Value {
    serde_json::from_str(ran.out.trim()).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// Nodes whose sessions live as long as it takes to build the binary.
async fn patient(nodes: usize) -> World {
    let policy = Policy { lease_ms: 3_600_000, ..Policy::default() };
    World::with(Options { nodes, policy, ..Options::default() }).await
}

/// A login, a claim with a text, and a second session that ends.
async fn a_day(world: &World, user: &str) -> String {
    let client = world.user(user);
    let session = client.login().await;
    let second = client.login().await;
    let claim = json!({ "status": "busy", "text": format!("what {user} says") });
    client.put(&format!("/v1/users/{user}/claims/manual"), claim).await.expect(200);
    client.logout(&second).await.expect(200);
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_consistent_ends_with_0_and_wrong_usage_with_2_and_no_database_with_1() {
    let world = patient(1).await;
    a_day(&world, "ana").await;
    fold::caught_up(&world.pool).await;
    let plain = doctor(&world, []).await;
    assert_eq!((plain.code, plain.out.trim()), (Some(0), "no findings"), "{}", plain.err);
    let ran = doctor(&world, ["--json"]).await;
    assert_eq!(ran.code, Some(0));
    assert_eq!((&report(&ran)["findings"], &report(&ran)["complete"]), (&json!([]), &json!(true)));
    assert_eq!(doctor(&world, ["--mend"]).await.code, Some(2));
    let nowhere = ["doctor", "--database-url", "postgres://nobody@127.0.0.1:1/none"];
    assert_eq!(run(nowhere).await.code, Some(1));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_end_with_3_and_a_repair_beside_two_nodes_mends_them() {
    let mut world = patient(2).await;
    let users = ["status", "row", "session", "ghost", "ended", "span", "sums", "day"];
    let mut sessions = Vec::new();
    for user in users {
        sessions.push(a_day(&world, user).await);
    }
    fold::caught_up(&world.pool).await;
    let of = |user: &str| format!("(select user_no from account where user_id = '{user}')");
    let broken = format!(
        "update current_status set status = 'offline', position = position + 500
          where user_no = {};
         delete from current_status where user_no = {};
         delete from live_session where user_no = {};
         insert into live_session select gen_random_uuid(), user_no, opened_at, last_seen, check_at,
                opened_position, lease_ms, idle_ms, away_after_ms, kind, active
           from live_session where user_no = {};
         delete from ended_session where user_no = {};
         delete from status_span_1 where user_no = {} and to_at is null;
         update occupancy_1 set away = away + 7;
         update status_daily_open_1 set at = at - interval '1 hour' where user_no = {};
         insert into status_daily_1 values ({}, '2020-01-01', 5, 0, 0, 0)",
        of("status"),
        of("row"),
        of("session"),
        of("ghost"),
        of("ended"),
        of("span"),
        of("day"),
        of("day"),
    );
    let events = world.events().await;
    by_hand(&world, &broken).await;
    // A node that starts now believes what stands there.
    world.add_node().await;
    let ran = doctor(&world, []).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    for line in ["offline_with_session of status", "present_unlike_log of row", "    advice"] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    let ran = doctor(&world, ["--repair", "--json"]).await;
    let report = report(&ran);
    assert_eq!((ran.code, &report["findings"]), (Some(0), &json!([])), "{report}");
    let repairs = report["repairs"].as_array().unwrap();
    assert!(repairs.iter().all(|repair| repair["kept"].is_null()), "{repairs:?}");
    assert_eq!(world.events().await, events, "the log is never touched");
    let noted = "select count(*) from repair where what = 'present'";
    let noted: i64 = sqlx::query_scalar(noted).fetch_one(&world.pool).await.unwrap();
    assert!(noted >= 5, "{noted} presents");
    // Every node has heard of it, the one that believed otherwise among them.
    for node in 0..3 {
        let service = world.at_node(&world.service(), node);
        for user in users {
            let what = format!("node {node} has {user} busy");
            eventually(&what, async || {
                let status = service.status(user).await;
                status["status"] == "busy" && status["sessions"] == 1
            })
            .await;
            let claim = service.status(user).await["claims"][0].clone();
            assert_eq!(claim["text"], format!("what {user} says"), "{user}");
        }
    }
    // They go on.
    for (user, session) in users.iter().zip(&sessions) {
        world.at_node(&world.user(user), 2).beat(session).await.expect(200);
        world.at_node(&world.user(user), 1).logout(session).await.expect(200);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_set_aside_is_taken_in_again_once_the_poison_is_gone() {
    let world = patient(1).await;
    let session = a_day(&world, "ana").await;
    fold::caught_up(&world.pool).await;
    // No view takes a status that is not its own: every later span of hers is refused.
    by_hand(&world, "alter table status_span_1 add constraint poison check (status <> 'away')")
        .await;
    world.user("ben").login().await;
    let claim = json!({ "status": "away" });
    world.user("ana").put("/v1/users/ana/claims/manual", claim).await.expect(200);
    world.user("ana").beat(&session).await.expect(200);
    eventually("it is set aside", async || {
        let letters = "select count(*) from dead_letter";
        sqlx::query_scalar::<_, i64>(letters).fetch_one(&world.pool).await.unwrap() == 1
    })
    .await;
    let ran = doctor(&world, ["--repair", "--json"]).await;
    let poisoned = report(&ran);
    assert_eq!(ran.code, Some(3), "{poisoned}");
    assert_eq!(poisoned["findings"][0]["check"], "dead_letter");
    let why = poisoned["repairs"][0]["kept"].as_str().unwrap();
    assert!(why.contains("still refuses it: SQLSTATE 23514"), "{why}");
    assert_eq!(poisoned["repairs"][0]["user_id"], "ana");
    // A former version could not take something either, which is nobody's worry.
    let former = "
        insert into view_version (view, version, state, position)
        select view, 0, 'kept', position from view_version where view = 'status_span';
        insert into dead_letter (view, version, position, user_no, sqlstate, error)
        select view, 0, position, user_no, sqlstate, error from dead_letter";
    by_hand(&world, former).await;
    let fresh = world.auditor().get("/v1/health/consistency?fresh=true").await.expect(200);
    let letters = fresh["findings"].as_array().unwrap();
    assert_eq!((letters.len(), &letters[0]["check"]), (1, &json!("dead_letter")), "{fresh}");
    assert_eq!(letters[0]["expected"], "taken in by version 1");
    world.pool.execute("alter table status_span_1 drop constraint poison").await.unwrap();
    let ran = doctor(&world, ["--repair"]).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("status_span of ana: folded anew"), "{}", ran.out);
    eventually("health is green beside what is kept", async || {
        world.user("ben").get("/v1/health").await.expect(200)["status"] == "ok"
    })
    .await;
    by_hand(
        &world,
        "delete from dead_letter where version = 0;
        delete from view_version where version = 0",
    )
    .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_of_life_of_tomorrow_is_mended_from_the_log_and_the_lease_ends() {
    let world = patient(2).await;
    let session = a_day(&world, "ana").await;
    world.advance_s(60).await;
    world.at_node(&world.user("ana"), 1).beat_idle(&session, 5_000).await.expect(200);
    fold::caught_up(&world.pool).await;
    by_hand(
        &world,
        "update live_session
            set last_seen = last_seen + interval '1 day', check_at = check_at + interval '1 day';
         update current_status set last_activity = last_activity + interval '1 day'",
    )
    .await;
    let ran = doctor(&world, ["--repair", "--json"]).await;
    let mended = report(&ran);
    assert_eq!((ran.code, &mended["findings"]), (Some(0), &json!([])), "{mended}");
    let checks: Vec<&Value> =
        mended["before"]["findings"].as_array().unwrap().iter().map(|f| &f["check"]).collect();
    assert_eq!(checks, ["present_unlike_log", "session_unlike_log"], "{mended}");
    let heard = "select l.last_seen = e.occurred_at and l.idle_ms = 5000
           and s.last_activity < l.last_seen
      from live_session l join event e using (session_id)
      join current_status s on s.user_no = l.user_no where e.class = 'H'";
    assert!(sqlx::query_scalar::<_, bool>(heard).fetch_one(&world.pool).await.unwrap());
    world.advance_s(3_700).await;
    eventually("the lease ends", async || {
        world.service().status("ana").await["status"] == "offline"
    })
    .await;
    world.finish().await;
}

/// Everything that the views hold of a user, and all sums.
async fn in_views(world: &World, user: &str) -> Vec<String> {
    let mut all = Vec::new();
    for view in ["status_span", "session_span", "status_daily", "status_daily_open"] {
        let rows = format!(
            "select to_jsonb(v)::text from {view}_1 v join account a using (user_no)
              where a.user_id = $1 order by 1"
        );
        let rows = sqlx::query_scalar(&rows).bind(user).fetch_all(&world.pool).await.unwrap();
        all.extend::<Vec<String>>(rows);
    }
    let sums = "select to_jsonb(v)::text from occupancy v order by 1";
    all.extend(sqlx::query_scalar::<_, String>(sums).fetch_all(&world.pool).await.unwrap());
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_damaged_log_nothing_is_folded_and_what_was_made_from_it_stays() {
    let world = patient(1).await;
    for user in ["ana", "ben"] {
        a_day(&world, user).await;
        world.advance_s(60).await;
    }
    fold::caught_up(&world.pool).await;
    let before = in_views(&world, "ana").await;
    by_hand(
        &world,
        "delete from event where sequence = 3
            and user_no = (select user_no from account where user_id = 'ana');
         delete from status_span_1
          where user_no = (select user_no from account where user_id = 'ben');
         update occupancy_1 set away = away + 7",
    )
    .await;
    let damaged_sums = "update occupancy_1 set away = away - 7";
    let ran = doctor(&world, ["--repair", "--json"]).await;
    let report = report(&ran);
    assert_eq!(ran.code, Some(3), "{report}");
    let list = |name: &str| report[name].as_array().unwrap().clone();
    for what in ["present", "status_span", "status_daily", "occupancy"] {
        let kept: Vec<Value> = list("repairs")
            .into_iter()
            .filter(|r| r["what"] == what && !r["kept"].is_null())
            .collect();
        assert_eq!(kept.len(), 1, "{what}: {report}");
        let why = kept[0]["kept"].as_str().unwrap();
        assert!(why.contains("the log itself is damaged: sequence ["), "{why}");
    }
    let of_ben = list("repairs").into_iter().filter(|repair| repair["kept"].is_null());
    let of_ben: Vec<Value> = of_ben.map(|repair| repair["what"].clone()).collect();
    assert_eq!(of_ben, [json!("status_span")], "{report}");
    let findings = list("findings");
    assert!(findings.iter().any(|finding| finding["check"] == "sequence"), "{report}");
    for finding in &findings {
        assert_ne!(finding["user_id"], "ben", "{finding}");
        let advice = finding["advice"].as_str().unwrap();
        assert!(advice.contains("was changed past") || advice.contains("itself changed past"));
        assert!(!advice.contains("--repair") && !advice.contains("rebuild"), "{finding}");
    }
    by_hand(&world, damaged_sums).await;
    assert_eq!(in_views(&world, "ana").await, before);
    // The node says the same.
    let fresh = world.auditor().get("/v1/health/consistency?fresh=true").await.expect(200);
    for finding in fresh["findings"].as_array().unwrap() {
        assert!(!finding["advice"].as_str().unwrap().contains("--repair"), "{finding}");
    }
    world.abandon().await;
}
