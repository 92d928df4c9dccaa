//! Heartbeats past their time go leaf by leaf, and the log says so first.

use std::time::Duration;

use chrono::TimeDelta;
use domain::Policy;
use projections::leaves::LEAF_POSITIONS;
use projections::retention;
use serde_json::Value;
use sqlx::Executor;
use tests::world::Options;
use tests::{World, eventually, fold};

const LEAF: &str = "event_h_0000000000000000";

/// Heartbeats in the first leaf, then a login in the second; retention is one day.
async fn two_leaves(nodes: usize) -> World {
    let policy = Policy { heartbeat_retention_days: 1, ..Policy::default() };
    let world = World::with(Options { nodes, policy, ..Options::default() }).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    for _ in 0..5 {
        ana.beat(&session).await.expect(200);
    }
    ana.logout(&session).await.expect(200);
    let next = format!("select setval('log_pos', {LEAF_POSITIONS})");
    world.pool.execute(next.as_str()).await.unwrap();
    ana.login().await;
    fold::caught_up(&world.pool).await;
    world
}

async fn there(world: &World) -> bool {
    sqlx::query_scalar("select to_regclass($1) is not null")
        .bind(LEAF)
        .fetch_one(&world.pool)
        .await
        .unwrap()
}

async fn dropped(world: &World) -> Vec<Value> {
    sqlx::query_scalar("select data from event where type = 'partition_dropped'")
        .fetch_all(&world.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_leaf_goes_once_all_of_it_is_older_than_the_policy_asks() {
    let world = two_leaves(1).await;
    let realm = world.nodes[0].realm();
    assert_eq!(retention::step(realm).await.unwrap(), None, "it is young");
    world.outage(Duration::from_hours(25)).await;
    world.user("ben").login().await;
    fold::caught_up(&world.pool).await;
    let expired = retention::step(realm).await.unwrap().unwrap();
    assert_eq!((&*expired.leaf, expired.from, expired.to), (LEAF, 0, LEAF_POSITIONS));
    assert!(!there(&world).await);
    let said = dropped(&world).await;
    assert_eq!(said.len(), 1);
    assert_eq!((&said[0]["leaf"], &said[0]["rows"]), (&LEAF.into(), &5.into()));
    let (oldest, newest) = (&said[0]["oldest_recorded_at"], &said[0]["newest_recorded_at"]);
    assert!(tests::instant(oldest) <= tests::instant(newest));
    let events = world.logged("partition_dropped").await;
    assert_eq!(events[0]["data"]["from_position"], 0);
    assert_eq!(retention::step(realm).await.unwrap(), None, "the next is being written");
    let lost = "select count(*) from event where class = 'T' and position < 16777216";
    let lost: i64 = sqlx::query_scalar(lost).fetch_one(&world.pool).await.unwrap();
    assert!(lost >= 3, "transitions are kept");
    world.user("ana").get("/v1/users/ana/status").await.expect(200);
    world.abandon().await;
}

#[tokio::test]
async fn no_leaf_goes_above_the_checkpoint_of_any_view() {
    let world = two_leaves(1).await;
    let realm = world.nodes[0].realm();
    world.outage(Duration::from_hours(25)).await;
    world.user("ben").login().await;
    let behind = "insert into view_version (view, version, state, position)
        values ('occupancy', 9, 'stopped', 3)";
    world.pool.execute(behind).await.unwrap();
    assert_eq!(retention::step(realm).await.unwrap(), None);
    world.pool.execute("delete from view_version where version = 9").await.unwrap();
    fold::caught_up(&world.pool).await;
    assert!(retention::step(realm).await.unwrap().is_some());
    world.abandon().await;
}

#[tokio::test]
async fn two_nodes_and_one_that_died_in_between_say_it_once() {
    let world = two_leaves(2).await;
    let (one, other) = (world.nodes[0].realm(), world.nodes[1].realm());
    world.outage(Duration::from_hours(25)).await;
    world.user("ben").login().await;
    fold::caught_up(&world.pool).await;
    // Said, and died before the leaf went; then after it was detached, and before it was dropped.
    let mut owner = one.database().owner().await.unwrap();
    let expired = retention::oldest(&mut owner, TimeDelta::days(1)).await.unwrap().unwrap();
    retention::announce(one, &expired).await.unwrap();
    owner
        .execute(format!("alter table event_h detach partition {LEAF} concurrently").as_str())
        .await
        .unwrap();
    let (first, second) = tokio::join!(retention::step(one), retention::step(other));
    let gone = [first.unwrap(), second.unwrap()];
    assert!(gone.iter().flatten().all(|leaf| *leaf == expired), "{gone:?}");
    eventually("the leaf is gone", async || {
        retention::step(one).await.unwrap();
        !there(&world).await
    })
    .await;
    assert_eq!(dropped(&world).await.len(), 1);
    world.abandon().await;
}
