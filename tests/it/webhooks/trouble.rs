//! Receivers that fail, hang, redirect, and are killed.

use std::time::Duration;

use domain::Timestamp;
use serde_json::{Value, json};
use tests::{World, eventually, within};

use super::delivery::{churn, endpoint};
use super::receiver::{Mood, Receiver};

/// Time for what takes an attempt's whole time.
const LONG: Duration = Duration::from_secs(40);

async fn count(world: &World, path: &str, what: &str) -> i64 {
    world.admin().get(path).await.expect(200)[what].as_i64().unwrap()
}

/// Waits until no attempt is under way: what is heard is noted a moment later, and only then is it
/// known when the next one is due. The tries of what waits for another one.
async fn all_noted(world: &World, path: &str) -> Vec<i64> {
    let mut attempts = Vec::new();
    eventually("every attempt is noted", async || {
        let listed = world.admin().get(&format!("{path}/deliveries?state=pending")).await;
        let items = listed.expect(200)["items"].as_array().unwrap().clone();
        let now = world.now().await;
        let tried = |item: &&Value| item["attempts"] != 0;
        let ahead = |item: &Value| {
            let next: Timestamp = item["next_attempt_at"].as_str().unwrap().parse().unwrap();
            next > now
        };
        attempts =
            items.iter().filter(tried).filter_map(|item| item["attempts"].as_i64()).collect();
        items.iter().filter(tried).all(ahead)
    })
    .await;
    attempts
}

/// Past the next attempt, whatever its wait: the log's clock moves by more than the longest one.
async fn next_attempt(world: &World, path: &str, receiver: &Receiver) {
    all_noted(world, path).await;
    let before = receiver.heard().len();
    world.outage(Duration::from_hours(30)).await;
    eventually("it is tried again", async || receiver.heard().len() > before).await;
}

#[tokio::test]
async fn a_failing_user_waits_alone_and_in_order() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    let path = endpoint(&world, &receiver, json!({})).await;
    receiver.set(Mood::FailsFor("ana"));
    churn(&world, "ana", 2).await;
    churn(&world, "ben", 2).await;
    eventually("ben's are told", async || receiver.taken().len() == 4).await;
    let of_ana = |receiver: &Receiver| -> Vec<String> {
        let heard = receiver.heard().into_iter();
        heard.filter(|h| h.body["data"]["user_id"] == "ana").map(|h| h.id).collect()
    };
    eventually("ana's first was tried", async || !of_ana(&receiver).is_empty()).await;
    next_attempt(&world, &path, &receiver).await;
    // Only her first, and each time under the same name.
    let tried = of_ana(&receiver);
    assert!(tried.len() >= 2 && tried.iter().all(|id| *id == tried[0]), "{tried:?}");
    let listed = world.admin().get(&format!("{path}/deliveries?state=pending")).await.expect(200);
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 4);
    eventually("the failure is noted", async || {
        let listed = world.admin().get(&format!("{path}/deliveries?state=pending")).await;
        let listed = listed.expect(200);
        let first = listed["items"].as_array().unwrap().last().unwrap().clone();
        first["http_status"] == 500 && first["error"] == "answered 500"
    })
    .await;
    all_noted(&world, &path).await;
    receiver.set(Mood::Takes);
    world.outage(Duration::from_hours(30)).await;
    eventually("then all of hers are told", async || receiver.taken().len() == 8).await;
    assert_eq!(receiver.sequences()["ana"], [1, 2, 3, 4]);
    world.finish().await;
}

#[tokio::test]
async fn what_waits_for_a_dead_endpoint_is_told_when_another_finds_it_alive() {
    let world = World::start().await;
    let mut receiver = Receiver::start().await;
    let path = endpoint(&world, &receiver, json!({ "event_types": ["session_opened"] })).await;
    receiver.kill().await;
    churn(&world, "ana", 1).await;
    // Until the next attempt is half an hour ahead.
    eventually("it was tried", async || {
        let attempts = all_noted(&world, &path).await;
        if attempts.first().is_some_and(|attempts| *attempts < 5) {
            world.outage(Duration::from_mins(10)).await;
        }
        attempts == [5]
    })
    .await;
    let listed = world.admin().get(&format!("{path}/deliveries")).await.expect(200);
    assert_eq!(listed["items"][0]["error"], "cannot be connected to");
    receiver.revive();
    let heard = |user: &str| receiver.taken().iter().any(|h| h.body["data"]["user_id"] == user);
    eventually("ben's find it alive, and hers come at once", async || {
        churn(&world, "ben", 1).await;
        heard("ben") && heard("ana")
    })
    .await;
    assert_eq!(receiver.heard().len(), receiver.taken().len(), "nothing twice");
    world.finish().await;
}

#[tokio::test]
async fn what_no_attempt_gets_through_is_given_up_visibly_and_can_be_replayed() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    let path = endpoint(&world, &receiver, json!({ "event_types": ["session_opened"] })).await;
    receiver.set(Mood::Fails);
    churn(&world, "ana", 1).await;
    eventually("the first attempt", async || receiver.heard().len() == 1).await;
    while !all_noted(&world, &path).await.is_empty() {
        let known = receiver.heard().len();
        world.outage(Duration::from_hours(30)).await;
        eventually("another attempt, or none is left", async || {
            receiver.heard().len() > known || count(&world, &path, "dead").await == 1
        })
        .await;
    }
    let attempts = api::webhooks::schedule::RETRY_AFTER.len() + 1;
    assert_eq!(receiver.heard().len(), attempts);
    let listed = world.admin().get(&format!("{path}/deliveries?state=dead")).await.expect(200);
    assert_eq!(listed["items"][0]["attempts"], json!(attempts));
    // The user's next ones go on.
    receiver.set(Mood::Takes);
    churn(&world, "ana", 1).await;
    eventually("the next is told", async || receiver.taken().len() == 1).await;
    let replay = format!("{path}/replay");
    let admin = world.admin();
    let replayed = admin.post(&replay, json!({ "dead": true })).await.expect(202);
    assert_eq!(replayed["replayed"], 1);
    eventually("the dead is told", async || receiver.taken().len() == 2).await;
    let heard = receiver.heard();
    assert_eq!(heard[0].id, heard.last().unwrap().id);
    // And everything, from a position on, under the same ids and in order.
    let known = receiver.heard().len();
    let again = admin.post(&replay, json!({ "after": 0 })).await.expect(202);
    assert_eq!(again["checkpoint"], 0);
    eventually("all are told again", async || receiver.heard().len() == known + 2).await;
    assert_eq!(receiver.taken().len(), 2);
    let sequences: Vec<Value> = receiver.heard()[known..]
        .iter()
        .map(|heard| heard.body["data"]["sequence"].clone())
        .collect();
    assert_eq!(sequences, [json!(1), json!(3)]);
    admin.post(&replay, json!({})).await.problem(422, "one_of_after_and_dead");
    admin.post(&replay, json!({ "after": 1_000_000 })).await.problem(422, "beyond_head");
    world.finish().await;
}

#[tokio::test]
async fn redirects_are_not_followed_and_gone_disables() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    let path = endpoint(&world, &receiver, json!({})).await;
    receiver.set(Mood::Redirects);
    let trial = world.admin().post(&format!("{path}/test"), json!({})).await.expect(200);
    assert_eq!((&trial["delivered"], &trial["http_status"]), (&json!(false), &json!(307)));
    assert_eq!(receiver.heard().len(), 1);
    receiver.set(Mood::Gone);
    let session = world.user("ana").login().await;
    eventually("it is disabled", async || {
        let told = world.admin().get(&path).await.expect(200);
        told["enabled"] == false && told["disabled_by"] == "gone"
    })
    .await;
    world.user("ana").logout(&session).await.expect(200);
    receiver.set(Mood::Takes);
    world.admin().put(&path, json!({ "enabled": true })).await.expect(200);
    world.outage(Duration::from_mins(1)).await;
    eventually("what happened meanwhile is told", async || receiver.taken().len() >= 2).await;
    assert_eq!(receiver.sequences()["ana"][..2], [1, 2]);
    world.finish().await;
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_nobody_else_up_and_is_given_back_at_the_end() {
    let mut world = World::start().await;
    let (hanging, other) = (Receiver::start().await, Receiver::start().await);
    endpoint(&world, &hanging, json!({})).await;
    endpoint(&world, &other, json!({})).await;
    hanging.set(Mood::Hangs);
    for n in 0..20 {
        churn(&world, &format!("user{n}"), 1).await;
    }
    eventually("the other hears all", async || other.taken().len() == 40).await;
    // Bounded in flight.
    let at_once = api::webhooks::desk::AT_ONCE_MAX;
    assert!(hanging.heard().len() <= at_once, "{}", hanging.heard().len());
    hanging.set(Mood::Takes);
    world.stop_node(0).await;
    world.add_node().await;
    within(LONG, "what was under way is told at once", async || hanging.taken().len() == 40).await;
    for (user, sequences) in hanging.sequences() {
        assert_eq!(sequences, [1, 2], "{user}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_receiver_killed_under_load_misses_nothing() {
    let world = World::with_nodes(2).await;
    let mut receiver = Receiver::start().await;
    let path = endpoint(&world, &receiver, json!({})).await;
    let users: Vec<String> = (0..15).map(|n| format!("user{n}")).collect();
    let load = async |times: usize| {
        futures::future::join_all(users.iter().map(|user| churn(&world, user, times))).await;
    };
    load(5).await;
    receiver.kill().await;
    load(5).await;
    receiver.revive();
    load(5).await;
    let total = users.len() * 30;
    within(LONG, "all are told", async || {
        world.advance_s(3).await;
        receiver.taken().len() == total
    })
    .await;
    for (user, sequences) in receiver.sequences() {
        assert_eq!(sequences, (1..=30).collect::<Vec<_>>(), "{user}");
    }
    // A name is told again only where it was not known to be taken, and says the same.
    let mut said = std::collections::HashMap::new();
    for heard in receiver.heard() {
        assert!(heard.verified);
        let before = said.insert(heard.id.clone(), heard.body.clone());
        assert!(before.is_none_or(|before| before == heard.body), "{}", heard.id);
    }
    assert_eq!(said.len(), total);
    eventually("nothing is left", async || {
        count(&world, &path, "pending").await == 0 && count(&world, &path, "dead").await == 0
    })
    .await;
    world.finish().await;
}
