//! History under another policy, made from a real log: beside a server, by a killed worker and by
//! the one after it, and compared with what was.

use domain::Timestamp;
use domain::policy::PolicyPatch;
use projections::what_if::work::{Worked, work};
use projections::what_if::{self, WHAT_IFS_MAX};
use serde_json::{Value, json};
use tests::process::{Ran, rollcall};
use tests::{World, eventually};
use tokio_util::sync::CancellationToken;

use crate::views::{hasty, live};

type Spans = Vec<(i64, Timestamp, Option<Timestamp>, String)>;

/// Time passes until everything that ends by itself has ended, and is written down.
async fn all_over(world: &World) {
    world.advance_s(30).await;
    eventually("everybody is timed out", async || {
        let open = "select count(*) from live_session";
        sqlx::query_scalar::<_, i64>(open).fetch_one(&world.pool).await.unwrap() == 0
    })
    .await;
}

async fn other(world: &World, name: &str) -> Spans {
    let spans = "select user_no, from_at, to_at, status::text from what_if_span where name = $1
        order by user_no, from_at";
    sqlx::query_as(spans).bind(name).fetch_all(&world.pool).await.unwrap()
}

async fn told(world: &World, name: &str) -> Spans {
    let spans = "select f.user_no, f.from_at, f.to_at, f.status::text
        from what_if w cross join (select array_agg(user_no) as all from current_status) u
       cross join lateral fold_spans(u.all, w.upto, false) f
       where w.name = $1 order by 1, 2";
    sqlx::query_as(spans).bind(name).fetch_all(&world.pool).await.unwrap()
}

async fn report(world: &World, name: &str) -> Value {
    let path = format!("/v1/what-if/{name}");
    eventually("it is done", async || {
        world.admin().get(&path).await.expect(200)["state"] == "done"
    })
    .await;
    world.admin().get(&path).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn under_the_policy_that_was_in_force_history_is_what_it_was() {
    for seed in 20..23 {
        let world = hasty(2).await;
        live(&world, seed, 80).await;
        all_over(&world).await;
        let same = json!({ "lease_ms": 8_000, "away_after_ms": 3_000 });
        for (name, policy) in [("as-it-was", json!({})), ("said-again", same)] {
            let question = json!({ "name": name, "policy": policy });
            world.admin().post("/v1/what-if", question).await.expect(202);
            let report = report(&world, name).await;
            let other = other(&world, name).await;
            assert!(other.len() > 20, "seed {seed}: {} spans", other.len());
            assert_eq!(other, told(&world, name).await, "seed {seed}, {name}");
            assert_eq!(report["users_changed"], 0);
            assert_eq!(report["changes"]["before"], report["changes"]["after"]);
            for total in report["totals"].as_array().unwrap() {
                assert_eq!(total["before_ms"], total["after_ms"]);
            }
        }
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_lease_is_compared_with_what_was_and_dropped_again() {
    let world = World::start().await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    ana.login().await;
    let session = ben.login().await;
    ben.logout(&session).await.expect(200);
    world.advance_s(200).await;
    eventually("she is timed out", async || world.count("ana", "session_expired").await == 1).await;
    ana.login().await;
    world.advance_s(30).await;
    let admin = world.admin();
    let question = json!({ "name": "longer", "policy": { "lease_ms": 600_000 } });
    let asked = admin.post("/v1/what-if", question.clone()).await.expect(202);
    assert_eq!((&asked["name"], &asked["policy"]), (&json!("longer"), &question["policy"]));
    // The same again is the same; the same name for something else is not.
    admin.post("/v1/what-if", question).await.expect(202);
    let another = json!({ "name": "longer", "policy": { "lease_ms": 700_000 } });
    admin.post("/v1/what-if", another).await.problem(409, "what_if_exists");
    let report = report(&world, "longer").await;
    assert_eq!((&report["users"], &report["users_changed"]), (&json!(2), &json!(1)));
    assert_eq!(report["most_changed"][0]["user_id"], "ana");
    // Online, offline, online: she would never have been away from us.
    assert_eq!(report["most_changed"][0]["changes"], json!({ "before": 2, "after": 0 }));
    let missed = report["most_changed"][0]["changed_ms"].as_i64().unwrap();
    assert!((80_000..110_000).contains(&missed), "{missed}");
    let total = |word: &str| {
        let totals = report["totals"].as_array().unwrap().iter();
        let total = totals.clone().find(|total| total["status"] == word).unwrap();
        total["after_ms"].as_i64().unwrap() - total["before_ms"].as_i64().unwrap()
    };
    // Each sum is cut to milliseconds by itself.
    assert!((total("online") - missed).abs() <= 1, "{missed}");
    assert_eq!(total("away"), 0);
    assert!((total("offline") + missed).abs() <= 1, "the day has as many hours as before");
    let by_day = report["days"].as_array().unwrap().iter();
    let by_day: i64 = by_day
        .map(|day| day["after_ms"].as_i64().unwrap() - day["before_ms"].as_i64().unwrap())
        .sum();
    assert!((by_day - missed).abs() <= 2);
    let listed = world.auditor().get("/v1/what-if").await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    admin.delete("/v1/what-if/longer").await.expect(204);
    admin.delete("/v1/what-if/longer").await.problem(404, "what_if_not_found");
    admin.get("/v1/what-if/longer").await.problem(404, "what_if_not_found");
    eventually("its rows are gone", async || {
        let left = "select (select count(*) from what_if) + (select count(*) from what_if_span)
            + (select count(*) from what_if_day) + (select count(*) from what_if_user)";
        sqlx::query_scalar::<_, i64>(left).fetch_one(&world.pool).await.unwrap() == 0
    })
    .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_for_admins_few_and_such_as_could_be_in_force() {
    let world = World::start().await;
    let ask = async |name: &str, policy: Value| {
        world.admin().post("/v1/what-if", json!({ "name": name, "policy": policy })).await
    };
    let question = json!({ "name": "x", "policy": {} });
    world.auditor().post("/v1/what-if", question).await.problem(403, "forbidden");
    world.user("ana").get("/v1/what-if").await.problem(403, "forbidden");
    world.auditor().delete("/v1/what-if/x").await.problem(403, "forbidden");
    ask("No Name", json!({})).await.problem(422, "invalid_name");
    ask("x", json!({ "lease_ms": 1_000 })).await.problem(422, "policy_refused");
    ask("x", json!({ "visibility": "all" })).await.problem(400, "unknown_field");
    for n in 0..WHAT_IFS_MAX {
        ask(&format!("n{n}"), json!({})).await.expect(202);
    }
    ask("one-more", json!({})).await.problem(409, "too_many_what_ifs");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_heartbeats_are_past_retention_history_stays_as_it_was() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    for _ in 0..4 {
        world.advance_s(90).await;
        ana.beat(&session).await.expect(200);
    }
    ana.logout(&session).await.expect(200);
    let shorter = |name: &str| json!({ "name": name, "policy": { "lease_ms": 70_000 } });
    world.admin().post("/v1/what-if", shorter("with")).await.expect(202);
    assert_eq!(report(&world, "with").await["users_changed"], 1);
    // As retention leaves it: the heartbeats are gone, and it stands written up to where.
    let mut owner = world.nodes[0].realm().database().owner().await.unwrap();
    sqlx::raw_sql(
        "set session_replication_role = replica;
         insert into relay select 'retention', max(position) + 1 from event
             where type = 'session_closed';
         delete from event where class = 'H';",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    world.user("ben").login().await;
    world.admin().post("/v1/what-if", shorter("without")).await.expect(202);
    let report = report(&world, "without").await;
    assert_eq!((&report["users"], &report["users_changed"]), (&json!(2), &json!(0)));
    world.abandon().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_left_is_made_whole_by_the_next_one() {
    let mut world = hasty(1).await;
    live(&world, 30, 60).await;
    all_over(&world).await;
    let database = world.nodes[0].realm().database().clone();
    world.stop_node(0).await;
    let pool = database.pool();
    let patch = PolicyPatch { lease_ms: Some(8_000), ..PolicyPatch::default() };
    what_if::create(&pool, "again", &patch).await.unwrap().unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let worked = work(&database, "again", &stop, |_| ()).await.unwrap();
    assert_eq!(worked, Worked::Stopped);
    // As one that is killed leaves it: rows of users who are not complete, and its name.
    sqlx::raw_sql(
        "insert into what_if_span select 'again', max(user_no), now(), null, 'dnd'
           from current_status;
         update what_if set worker = gen_random_uuid();",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let on = CancellationToken::new();
    assert_eq!(work(&database, "again", &on, |_| ()).await.unwrap(), Worked::Taken);
    let silent = "update what_if set moved_at = moved_at - interval '31 s'";
    sqlx::query(silent).execute(&world.pool).await.unwrap();
    let url = world.database.url.clone();
    let ran = async |args: &[&str]| {
        Ran::of(rollcall().arg("what-if").args(args).args(["--database-url", &url])).await
    };
    let report: Value = serde_json::from_str(ran(&["again"]).await.ok().trim()).unwrap();
    assert_eq!((&report["state"], &report["users_changed"]), (&json!("done"), &json!(0)));
    assert_eq!(other(&world, "again").await, told(&world, "again").await);
    let shorter = ran(&["shorter", "--away-after-ms", "1000", "--lease-ms", "7000"]).await.ok();
    let shorter: Value = serde_json::from_str(shorter.trim()).unwrap();
    assert_ne!(shorter["users_changed"], 0);
    assert_eq!(ran(&["shorter", "--drop"]).await.ok(), "shorter is gone\n");
    assert_eq!(ran(&["shorter"]).await.code, Some(1));
    assert_eq!(ran(&["shorter", "--drop"]).await.code, Some(1));
    assert_eq!(ran(&["No Name", "--drop"]).await.code, Some(2));
    pool.close().await;
    world.add_node().await;
    world.finish().await;
}
