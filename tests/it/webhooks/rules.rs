//! Rules that have a webhook told.

use serde_json::json;
use tests::{World, eventually};

use super::delivery::endpoint;
use super::receiver::Receiver;

#[tokio::test]
async fn a_webhook_is_told_once_of_a_status_that_lasts() {
    let mut world = World::with_nodes(2).await;
    let receiver = Receiver::start().await;
    // Its own filter lets nothing pass: a rule's word needs none.
    let path = endpoint(&world, &receiver, json!({ "event_types": ["corrected"] })).await;
    let id = path.rsplit('/').next().unwrap().to_owned();
    let rules = json!([{ "name": "long-away", "when": { "status": "away", "for_ms": 20_000 },
        "then": { "webhook": id } }]);
    crate::rules::in_force(&world, rules).await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    let session = ana.login_idle(400_000).await;
    let other = ben.login_idle(400_000).await;
    world.advance_s(10).await;
    ben.beat_idle(&other, 0).await.expect(200);
    world.advance_s(15).await;
    eventually("it is told", async || receiver.taken().len() == 1).await;
    // It is told again, under the same name, if whoever told it ends before its answer is noted.
    let noted = format!("{path}/deliveries?state=delivered");
    eventually("and that is noted", async || {
        let listed = world.admin().get(&noted).await.expect(200);
        listed["items"].as_array().unwrap().len() == 1
    })
    .await;
    world.stop_node(1).await;
    ana.beat_idle(&session, 500_000).await.expect(200);
    world.advance_s(30).await;
    let heard = receiver.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    let told = &heard[0];
    assert!(told.verified && told.id.ends_with("_long-away"), "{}", told.id);
    assert_eq!(told.body["type"], "rollcall.rule_matched");
    assert_eq!(told.body["rule"], "long-away");
    let began = &told.body["data"];
    assert_eq!((&began["user_id"], &began["to_status"]), (&json!("ana"), &json!("away")));
    // Another stretch is told anew.
    ana.beat_idle(&session, 0).await.expect(200);
    ana.beat_idle(&session, 400_000).await.expect(200);
    world.advance_s(25).await;
    eventually("the next is told", async || receiver.taken().len() == 2).await;
    let listed = world.admin().get(&format!("{path}/deliveries")).await.expect(200);
    assert_eq!(listed["items"][0]["rule"], "long-away");
    world.finish().await;
}
