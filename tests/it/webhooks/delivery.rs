//! What is told, to whom, in which shape and order.

use serde_json::{Value, json};
use tests::{World, eventually};

use super::receiver::Receiver;

/// An endpoint of that receiver, which trusts its secret; its path.
pub(super) async fn endpoint(world: &World, receiver: &Receiver, filter: Value) -> String {
    let mut request = filter;
    request["url"] = json!(receiver.url);
    let made = world.admin().post("/v1/webhooks", request).await.expect(201);
    receiver.trust(&made["secret"]);
    format!("/v1/webhooks/{}", made["webhook_id"].as_str().unwrap())
}

/// So many logins and logouts, one after the other.
pub(super) async fn churn(world: &World, user: &str, times: usize) {
    let client = world.user(user);
    for _ in 0..times {
        let session = client.login().await;
        client.logout(&session).await.expect(200);
    }
}

#[tokio::test]
async fn a_transition_is_told_signed_as_the_log_has_it() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    // What happened before the endpoint was made is not told.
    churn(&world, "before", 1).await;
    let path = endpoint(&world, &receiver, json!({})).await;
    churn(&world, "ana", 1).await;
    eventually("both are told", async || receiver.taken().len() == 2).await;
    let heard = receiver.heard();
    assert!(heard.iter().all(|heard| heard.verified), "{heard:?}");
    let logged = world.transitions("ana").await;
    for (heard, event) in heard.iter().zip(&logged) {
        assert_eq!(heard.body["type"], format!("rollcall.{}", event["type"].as_str().unwrap()));
        assert_eq!(heard.body["timestamp"], event["occurred_at"]);
        assert_eq!(&heard.body["data"], event);
        assert!(heard.id.ends_with(&format!("_{}", event["position"])), "{}", heard.id);
    }
    let admin = world.admin();
    eventually("both are noted", async || {
        let listed = admin.get(&format!("{path}/deliveries?state=delivered")).await.expect(200);
        listed["items"].as_array().unwrap().len() == 2
    })
    .await;
    let first = admin.get(&format!("{path}/deliveries?limit=1")).await.expect(200);
    assert_eq!(first["items"][0]["id"], heard[1].id);
    let cursor = first["next_cursor"].as_str().unwrap();
    let next = admin.get(&format!("{path}/deliveries?limit=1&cursor={cursor}")).await.expect(200);
    assert_eq!(next["items"][0]["id"], heard[0].id);
    assert!(next["next_cursor"].is_null());
    world.finish().await;
}

#[tokio::test]
async fn filters_choose_by_user_group_type_and_status() {
    let world = World::start().await;
    let (all, some, mates) =
        (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    endpoint(&world, &all, json!({})).await;
    let filter = json!({ "users": ["ana"], "from_status": ["online"], "to_status": ["offline"] });
    endpoint(&world, &some, filter).await;
    let filter = json!({ "groups": ["ward"], "event_types": ["session_opened", "policy_changed"] });
    endpoint(&world, &mates, filter).await;
    world.service().put("/v1/groups/ward/members/ben", json!({})).await.expect(200);
    for user in ["ana", "ben", "cid"] {
        churn(&world, user, 1).await;
    }
    let change = json!({ "lease_ms": 200_000 });
    world.admin().put("/v1/policy", change).await.expect(200);
    eventually("all is told to whom all is told", async || all.taken().len() == 6).await;
    eventually("one to each of the others", async || {
        some.taken().len() == 1 && mates.taken().len() == 1
    })
    .await;
    let told = &some.taken()[0].body;
    assert_eq!(
        (&told["data"]["user_id"], &told["type"]),
        (&json!("ana"), &json!("rollcall.session_closed"))
    );
    assert_eq!(mates.taken()[0].body["data"]["user_id"], "ben");
    // The system's own events are told where they are named, to whom no user is named.
    let system = Receiver::start().await;
    endpoint(&world, &system, json!({ "event_types": ["policy_changed"] })).await;
    world.admin().put("/v1/policy", json!({ "lease_ms": 210_000 })).await.expect(200);
    eventually("the change is told", async || system.taken().len() == 1).await;
    assert_eq!(all.taken().len(), 6);
    world.finish().await;
}

#[tokio::test]
async fn after_a_rotation_both_secrets_verify() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    let path = endpoint(&world, &receiver, json!({})).await;
    let admin = world.admin();
    let rotated = admin.put(&path, json!({ "rotate_secret": true })).await.expect(200);
    let trial = admin.post(&format!("{path}/test"), json!({})).await.expect(200);
    assert_eq!((&trial["delivered"], &trial["http_status"]), (&json!(true), &json!(200)));
    receiver.trust(&rotated["secret"]);
    admin.post(&format!("{path}/test"), json!({})).await.expect(200);
    let heard = receiver.heard();
    assert!(heard.len() == 2 && heard.iter().all(|heard| heard.verified));
    assert_eq!(heard[0].body["type"], "rollcall.webhook_test");
    // A day later the former one no longer does.
    let former = admin.put(&path, json!({ "rotate_secret": true })).await.expect(200);
    assert!(former["secret"] != rotated["secret"]);
    world.outage(std::time::Duration::from_hours(25)).await;
    admin.post(&format!("{path}/test"), json!({})).await.expect(200);
    assert!(!receiver.heard()[2].verified);
    world.finish().await;
}

#[tokio::test]
async fn two_nodes_share_the_work() {
    let world = World::with_nodes(2).await;
    let receiver = Receiver::start().await;
    let path = endpoint(&world, &receiver, json!({})).await;
    let users: Vec<String> = (0..20).map(|n| format!("user{n}")).collect();
    futures::future::join_all(users.iter().map(|user| churn(&world, user, 10))).await;
    eventually("all are told", async || receiver.taken().len() == 400).await;
    for (user, sequences) in receiver.sequences() {
        assert_eq!(sequences, (1..=20).collect::<Vec<_>>(), "{user}");
    }
    // Nothing failed, so nothing is told twice.
    assert_eq!(receiver.heard().len(), 400);
    eventually("nothing is pending", async || {
        world.admin().get(&path).await.expect(200)["pending"] == 0
    })
    .await;
    world.finish().await;
}

#[tokio::test]
async fn an_invisible_user_is_told_truly_and_an_ended_endpoint_nothing() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    let path = endpoint(&world, &receiver, json!({ "event_types": ["visibility_changed"] })).await;
    let ana = world.user("ana");
    ana.login().await;
    ana.put("/v1/users/ana/visibility", json!({ "invisible": true })).await.expect(200);
    eventually("it is told", async || receiver.taken().len() == 1).await;
    assert_eq!(receiver.taken()[0].body["data"]["to_status"], "online");
    world.admin().delete(&path).await.expect(204);
    ana.put("/v1/users/ana/visibility", json!({ "invisible": false })).await.expect(200);
    let other = Receiver::start().await;
    endpoint(&world, &other, json!({})).await;
    churn(&world, "ben", 1).await;
    eventually("another hears", async || other.taken().len() == 2).await;
    assert_eq!(receiver.heard().len(), 1);
    world.finish().await;
}
