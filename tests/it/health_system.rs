//! What is neither about one user nor about one event: views, clocks, leaves; and who may ask.

use std::time::Duration;

use chrono::TimeDelta;
use domain::Timestamp;
use projections::db::Database;
use projections::health::{self, Check, Health};
use serde_json::json;
use sqlx::Acquire;
use sqlx::Executor;
use tests::{World, clock, eventually, within};

use crate::health::{FLAGGED_MAX, by_hand, findings, flagged};

#[tokio::test]
async fn only_auditors_and_admins_read_what_is_inconsistent() {
    let world = World::start().await;
    for client in [world.user("ana"), world.service()] {
        client.get("/v1/health/consistency").await.problem(403, "forbidden");
    }
    world.nobody().get("/v1/health/consistency").await.problem(401, "unauthenticated");
    let auditor = world.auditor();
    auditor.get("/v1/health/consistency?deep=1").await.problem(400, "unknown_parameter");
    for client in [auditor, world.admin()] {
        let fresh = client.get("/v1/health/consistency?fresh=true").await.expect(200);
        assert_eq!((&fresh["findings"], &fresh["complete"]), (&json!([]), &json!(true)));
    }
    let health = || async { world.user("ana").get("/v1/health").await.expect(200) };
    within(FLAGGED_MAX, "the views are seen", async || {
        health().await["views"].as_array().unwrap().len() == 4
    })
    .await;
    let health = health().await;
    assert_eq!((&health["status"], &health["findings"]), (&json!("ok"), &json!(0)));
    for view in health["views"].as_array().unwrap() {
        assert_eq!((&view["state"], &view["waiting_users"]), (&json!("live"), &json!(0)));
    }
    world.finish().await;
}

#[tokio::test]
async fn a_view_that_somebody_holds_is_stuck_until_it_is_let_go() {
    let world = World::start().await;
    let mut connection = world.pool.acquire().await.unwrap();
    let mut held = connection.begin().await.unwrap();
    held.execute("select from view_version where view = 'occupancy' for update").await.unwrap();
    world.user("ana").login().await;
    let finding = flagged(&world, "view_stuck", None).await;
    assert_eq!(finding["view"], "occupancy");
    let positions = finding["positions"].as_array().unwrap();
    assert_eq!(positions.last(), Some(&json!(world.head().await)));
    assert_eq!(world.admin().get("/v1/health").await.expect(200)["status"], "red");
    // Whoever asks now, of a node that has not watched, hears it as well.
    let database = Database::new(&world.database.url).unwrap();
    let survey = health::examine(&database, chrono::Utc::now, |_| {}).await.unwrap();
    let checks: Vec<Check> = survey.findings.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, [Check::ViewStuck]);
    held.rollback().await.unwrap();
    drop(connection);
    within(FLAGGED_MAX, "it moves again", async || findings(&world).await.is_empty()).await;
    world.finish().await;
}

#[tokio::test]
async fn leaves_that_run_out_or_are_no_part_of_the_log_are_flagged() {
    let world = World::start().await;
    by_hand(
        &world,
        "alter table event_t detach partition event_t_0000000016777216;
         create table event_h_0000099999999999 (i int)",
    )
    .await;
    let running_out = flagged(&world, "leaves_running_out", None).await;
    assert!(running_out["expected"].as_str().unwrap().contains("event_t_0000000016777216"));
    let mut detached = Vec::new();
    within(FLAGGED_MAX, "both are flagged", async || {
        let all = findings(&world).await;
        detached = all
            .into_iter()
            .filter(|finding| finding["check"] == "leaf_detached")
            .flat_map(|finding| finding["positions"].as_array().unwrap().clone())
            .collect();
        detached.len() == 2
    })
    .await;
    assert_eq!(detached, [json!(99_999_999_999_i64), json!(16_777_216)]);
    by_hand(
        &world,
        "alter table event_t attach partition event_t_0000000016777216
             for values from (16777216) to (33554432);
         drop table event_h_0000099999999999",
    )
    .await;
    within(FLAGGED_MAX, "they are there again", async || findings(&world).await.is_empty()).await;
    world.finish().await;
}

#[tokio::test]
async fn a_database_whose_clock_was_set_back_is_flagged() {
    let world = World::start().await;
    world.advance_s(60).await;
    world.pool.execute("update test_clock set shift = shift - interval '30 s'").await.unwrap();
    let finding = flagged(&world, "clock_set_back", None).await;
    assert_eq!(finding["severity"], "warning");
    assert_eq!(world.admin().get("/v1/health").await.expect(200)["status"], "degraded");
    clock::shift(&world.pool, Duration::from_secs(30)).await;
    within(FLAGGED_MAX, "it has caught up", async || findings(&world).await.is_empty()).await;
    world.finish().await;
}

#[tokio::test]
async fn a_machine_whose_clock_is_off_is_flagged() {
    fn ten_seconds_late() -> Timestamp {
        chrono::Utc::now() - TimeDelta::seconds(10)
    }
    let world = World::start().await;
    let database = Database::new(&world.database.url).unwrap();
    let survey = Health::default().fresh(&database, ten_seconds_late).await.unwrap().unwrap();
    let checks: Vec<Check> = survey.findings.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, [Check::ClockSkew]);
    assert!(survey.findings[0].found.contains("ms ahead"), "{}", survey.findings[0].found);
    world.finish().await;
}

#[tokio::test]
async fn a_look_that_takes_too_long_is_told_as_incomplete() {
    let world = World::start().await;
    world.user("ana").login().await;
    let mut connection = world.pool.acquire().await.unwrap();
    let mut held = connection.begin().await.unwrap();
    held.execute("lock status_daily_1 in access exclusive mode").await.unwrap();
    let admin = world.admin();
    let fresh = admin.get("/v1/health/consistency?fresh=true").await.expect(200);
    assert_eq!(fresh["complete"], false, "{fresh}");
    held.rollback().await.unwrap();
    drop(connection);
    eventually("then it goes through", async || {
        let fresh = admin.get("/v1/health/consistency?fresh=true").await.expect(200);
        fresh["complete"] == true && fresh["findings"] == json!([])
    })
    .await;
    world.finish().await;
}
