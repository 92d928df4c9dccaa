//! Messages: in order, to the right ones, until acknowledged or a week has passed.

use std::time::Duration;

use projections::mailman::{Delivery, Inbox};
use projections::messages::{TEXT_BYTES_MAX, WAITING_FROM_PEOPLE_MAX, WAITING_MAX};
use serde_json::{Value, json};
use tests::{Client, World, clock, eventually, instant};
use uuid::Uuid;

const DAY: Duration = Duration::from_hours(24);
/// Longer than any delivery may take.
const DELIVERY_MAX: Duration = Duration::from_secs(15);

/// These have been here once.
async fn known(world: &World, users: &[&str]) {
    for user in users {
        world.user(user).login().await;
    }
}

async fn send(service: &Client, from: &str, to: &str, body: &str) -> Value {
    let message = json!({ "from": from, "to": to, "body": body });
    service.post("/v1/messages", message).await.expect(202)
}

async fn join(world: &World, group: &str, user: &str) {
    let path = format!("/v1/groups/{group}/members/{user}");
    world.service().put(&path, json!({})).await.expect(200);
}

async fn waiting(client: &Client) -> Vec<Value> {
    let page = client.get("/v1/messages?limit=1000").await.expect(200);
    page["items"].as_array().unwrap().clone()
}

async fn bodies(client: &Client) -> Vec<String> {
    let waiting = waiting(client).await;
    waiting.iter().map(|item| item["body"].as_str().unwrap().to_owned()).collect()
}

async fn acknowledge(client: &Client, ids: &[Value]) -> Value {
    client.post("/v1/messages/ack", json!({ "ids": ids })).await.expect(200)["acknowledged"].clone()
}

async fn inbox(world: &World, node: usize, user: &str) -> Inbox {
    let user = world.nodes[node].realm().names().find(&user.parse().unwrap()).await.unwrap();
    world.nodes[node].mail().subscribe(user.unwrap())
}

async fn next(inbox: &mut Inbox) -> Delivery {
    tokio::time::timeout(DELIVERY_MAX, inbox.next()).await.expect("nothing came").unwrap()
}

async fn rows(world: &World, table: &str) -> i64 {
    sqlx::query_scalar(&format!("select count(*) from {table}"))
        .fetch_one(&world.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_message_waits_until_its_receiver_has_acknowledged_it() {
    let world = World::start().await;
    known(&world, &["ana", "ben"]).await;
    let (ana, service) = (world.user("ana"), world.service());
    let sent = send(&service, "ben", "ana", "hello").await;
    let note = json!({ "user_id": "ana", "title": "Lab", "message": "It is there." });
    let noted = service.post("/v1/notifications", note).await.expect(202);
    assert_eq!(sent["position"], world.head().await);
    let items = waiting(&ana).await;
    let head = |item: &Value| (item["type"].clone(), item["id"].clone(), item["body"].clone());
    assert_eq!(head(&items[0]), (json!("message"), sent["id"].clone(), json!("hello")));
    assert_eq!(
        head(&items[1]),
        (json!("notification"), noted["id"].clone(), json!("It is there."))
    );
    assert_eq!((&items[0]["from"], &items[1]["from"]), (&json!("ben"), &Value::Null));
    assert_eq!((&items[0]["title"], &items[1]["title"]), (&Value::Null, &json!("Lab")));
    assert!(instant(&items[0]["created_at"]) <= instant(&items[1]["created_at"]));
    let id: Uuid = sent["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    // Nobody else has it, nor takes it away.
    assert_eq!(waiting(&world.user("ben")).await, Vec::<Value>::new());
    assert_eq!(acknowledge(&world.user("ben"), &[sent["id"].clone()]).await, 0);
    assert_eq!(acknowledge(&world.user("stranger"), &[sent["id"].clone()]).await, 0);
    assert_eq!(acknowledge(&ana, &[sent["id"].clone(), json!(Uuid::now_v7())]).await, 1);
    assert_eq!(acknowledge(&ana, &[sent["id"].clone()]).await, 0);
    assert_eq!(bodies(&ana).await, ["It is there."]);
    // Its text is gone, too.
    assert_eq!((rows(&world, "message").await, rows(&world, "delivery").await), (1, 1));
    world.finish().await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_and_writes_nothing() {
    let world = World::start().await;
    known(&world, &["ana"]).await;
    let service = world.service();
    let message = |to: &str, body: &str| json!({ "from": "ben", "to": to, "body": body });
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    let (note, path) = (json!({ "user_id": "x", "title": "t", "message": "m" }), "/v1/messages");
    service.post(path, message("nobody", "m")).await.problem(404, "user_not_found");
    service.post("/v1/notifications", note.clone()).await.problem(404, "user_not_found");
    for body in ["", long.as_str(), &"ä".repeat(TEXT_BYTES_MAX / 2 + 1)] {
        service.post(path, message("ana", body)).await.problem(422, "invalid_text");
        service.post("/v1/broadcasts", json!({ "body": body })).await.problem(422, "invalid_text");
    }
    for title in [String::new(), "t".repeat(257)] {
        let titled = json!({ "body": "m", "title": title });
        service.post("/v1/broadcasts", titled).await.problem(422, "invalid_text");
        let titled = json!({ "user_id": "ana", "title": title, "message": "m" });
        service.post("/v1/notifications", titled).await.problem(422, "invalid_text");
    }
    service.post(path, message("a b", "m")).await.problem(422, "invalid_user_id");
    service.post(path, message("ana", "\0")).await.problem(422, "nul_character");
    service.post(path, json!({ "to": "ana", "body": "m" })).await.problem(400, "missing_field");
    let ids: Vec<Uuid> = (0..1_001).map(|_| Uuid::now_v7()).collect();
    world
        .user("ana")
        .post("/v1/messages/ack", json!({ "ids": ids }))
        .await
        .problem(422, "too_many_ids");
    for client in [world.user("ana"), world.admin(), world.auditor()] {
        client.post(path, message("ana", "m")).await.problem(403, "forbidden");
        client.post("/v1/notifications", note.clone()).await.problem(403, "forbidden");
        client
            .post("/v1/groups/g/messages", json!({ "body": "m" }))
            .await
            .problem(403, "forbidden");
    }
    for client in [world.user("ana"), world.auditor()] {
        client.post("/v1/broadcasts", json!({ "body": "m" })).await.problem(403, "forbidden");
    }
    assert_eq!((rows(&world, "message").await, rows(&world, "delivery").await), (0, 0));
    send(&service, "ben", "ana", &"x".repeat(TEXT_BYTES_MAX)).await;
    world.finish().await;
}

#[tokio::test]
async fn each_senders_order_holds_however_many_nodes_they_send_through() {
    const SENDERS: usize = 4;
    const EACH: usize = 40;
    let world = World::with_nodes(2).await;
    known(&world, &["ana", "ben"]).await;
    // Both live from the start, one on each node; a third comes in the middle.
    let mut live = [inbox(&world, 0, "ana").await, inbox(&world, 1, "ana").await];
    let mut other = inbox(&world, 1, "ben").await;
    let service = world.service();
    let senders = (0..SENDERS).map(|sender| {
        let nodes = [world.at_node(&service, 0), world.at_node(&service, 1)];
        async move {
            for n in 0..EACH {
                send(&nodes[(n + sender) % 2], &format!("s{sender}"), "ana", &n.to_string()).await;
            }
        }
    });
    let readers = live.iter_mut().map(async |inbox| {
        let mut met = Vec::new();
        while met.len() < SENDERS * EACH {
            met.push(next(inbox).await);
        }
        met
    });
    let (_, mut met) =
        tokio::join!(futures::future::join_all(senders), futures::future::join_all(readers));
    let mut late = inbox(&world, 0, "ana").await;
    let mut third = Vec::new();
    while third.len() < SENDERS * EACH {
        third.push(next(&mut late).await);
    }
    met.push(third);
    for met in &met {
        assert!(met.is_sorted_by_key(|delivery| delivery.delivery_no));
        for sender in 0..SENDERS {
            let name = format!("s{sender}");
            let from =
                |delivery: &&Delivery| delivery.message.sender.as_ref().unwrap().as_str() == name;
            let bodies: Vec<&str> =
                met.iter().filter(from).map(|delivery| delivery.message.body.as_str()).collect();
            let sent: Vec<String> = (0..EACH).map(|n| n.to_string()).collect();
            assert_eq!(bodies, sent, "{name}");
        }
    }
    // Nothing of it came to somebody else.
    send(&service, "s0", "ben", "for ben").await;
    assert_eq!(next(&mut other).await.message.body, "for ben");
    world.finish().await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_over_a_restart_of_the_node() {
    let mut world = World::with_nodes(2).await;
    known(&world, &["ana"]).await;
    let service = world.service();
    let mut there = inbox(&world, 1, "ana").await;
    send(&service, "ben", "ana", "before").await;
    let first = next(&mut there).await;
    assert_eq!(first.message.body, "before");
    drop(there);
    world.stop_node(1).await;
    send(&service, "ben", "ana", "meanwhile").await;
    world.add_node().await;
    let mut there = inbox(&world, 1, "ana").await;
    send(&service, "ben", "ana", "after").await;
    // At least once: what was not acknowledged comes again, in order.
    let mut met = Vec::new();
    for _ in 0..3 {
        met.push(next(&mut there).await.message.body.clone());
    }
    assert_eq!(met, ["before", "meanwhile", "after"]);
    let at = world.at_node(&world.user("ana"), 1);
    assert_eq!(acknowledge(&at, &[json!(first.message.id)]).await, 1);
    assert_eq!(bodies(&world.user("ana")).await, ["meanwhile", "after"]);
    world.finish().await;
}

#[tokio::test]
async fn a_full_mailbox_refuses_until_there_is_room_and_groups_pass_it_over() {
    let world = World::start().await;
    known(&world, &["ana", "ben"]).await;
    let (service, ana) = (world.service(), world.user("ana"));
    join(&world, "team", "ana").await;
    for n in 0..WAITING_FROM_PEOPLE_MAX {
        send(&service, "ben", "ana", &n.to_string()).await;
    }
    let one_more = json!({ "from": "ben", "to": "ana", "body": "one more" });
    let refused = service.post("/v1/messages", one_more.clone()).await;
    assert!(!refused.header("retry-after").is_empty());
    refused.problem(429, "mailbox_full");
    // Systems still reach her.
    let system = json!({ "user_id": "ana", "title": "door", "message": "open" });
    for _ in WAITING_FROM_PEOPLE_MAX..WAITING_MAX {
        service.post("/v1/notifications", system.clone()).await.expect(202);
    }
    service.post("/v1/notifications", system).await.problem(429, "mailbox_full");
    let to_team = json!({ "body": "team" });
    let path = "/v1/groups/team/messages";
    service.post(path, to_team.clone()).await.problem(429, "mailbox_full");
    join(&world, "team", "ben").await;
    let sent = service.post(path, to_team).await.expect(202);
    assert_eq!((&sent["delivered"], &sent["refused"]), (&json!(1), &json!(1)));
    assert_eq!(bodies(&world.user("ben")).await, ["team"]);
    let oldest: Vec<Value> = waiting(&ana).await[..101].iter().map(|m| m["id"].clone()).collect();
    assert_eq!(acknowledge(&ana, &oldest).await, 101);
    service.post("/v1/messages", one_more.clone()).await.expect(202);
    service.post("/v1/messages", one_more).await.problem(429, "mailbox_full");
    let bodies = bodies(&ana).await;
    assert_eq!((bodies.len(), bodies[0].as_str()), (WAITING_FROM_PEOPLE_MAX as usize, "101"));
    assert_eq!(bodies.last().unwrap(), "one more");
    world.finish().await;
}

#[tokio::test]
async fn a_message_to_a_group_is_one_text_for_every_member_until_the_last_has_it() {
    let world = World::with_nodes(2).await;
    for user in ["ana", "ben", "cleo"] {
        join(&world, "team", user).await;
    }
    let mut live = inbox(&world, 1, "ben").await;
    let body = json!({ "from": "ana", "body": "hi" });
    let sent = world.service().post("/v1/groups/team/messages", body).await.expect(202);
    assert_eq!((&sent["delivered"], &sent["refused"]), (&json!(3), &json!(0)));
    assert_eq!(next(&mut live).await.message.id.to_string(), sent["id"]);
    join(&world, "team", "late").await;
    world.service().delete("/v1/groups/team/members/cleo").await.expect(200);
    for (user, count) in [("ana", 1), ("ben", 1), ("cleo", 1), ("late", 0)] {
        let waiting = waiting(&world.user(user)).await;
        assert_eq!(waiting.len(), count, "{user}");
        for item in waiting {
            assert_eq!((&item["type"], &item["group"]), (&json!("group"), &json!("team")));
            assert_eq!((&item["from"], &item["body"]), (&json!("ana"), &json!("hi")));
        }
    }
    assert_eq!(rows(&world, "message").await, 1);
    let ids = [sent["id"].clone()];
    let clients = ["ana", "ben", "cleo"].map(|user| world.user(user));
    let acks = clients.iter().map(|client| acknowledge(client, &ids));
    assert_eq!(futures::future::join_all(acks).await, [1, 1, 1]);
    // A node that was cut off may still want it for those who belong to the group by token.
    clock::shift(&world.pool, DAY / 24).await;
    projections::messages::forget_old(world.nodes[0].realm().pool()).await.unwrap();
    assert_eq!((rows(&world, "message").await, rows(&world, "delivery").await), (0, 0));
    world.finish().await;
}

#[tokio::test]
async fn a_broadcast_comes_to_everybody_who_is_live_and_waits_for_nobody() {
    let world = World::with_nodes(2).await;
    known(&world, &["ana", "ben", "cleo"]).await;
    let mut live = [
        inbox(&world, 0, "ana").await,
        inbox(&world, 0, "ana").await,
        inbox(&world, 1, "ben").await,
    ];
    send(&world.service(), "x", "ana", "first").await;
    send(&world.service(), "x", "ben", "first").await;
    for inbox in &mut live {
        assert_eq!(next(inbox).await.message.body, "first");
    }
    let body = json!({ "body": "fire drill", "title": "12:00" });
    let sent = world.admin().post("/v1/broadcasts", body).await.expect(202);
    assert_eq!((&sent["delivered"], &sent["refused"]), (&Value::Null, &Value::Null));
    for inbox in &mut live {
        let delivery = next(inbox).await;
        assert_eq!((delivery.message.body.as_str(), delivery.receiver), ("fire drill", None));
        assert_eq!(delivery.message.sender.as_ref().unwrap().as_str(), "root");
    }
    assert_eq!(waiting(&world.user("cleo")).await, Vec::<Value>::new());
    let mut late = inbox(&world, 0, "cleo").await;
    send(&world.service(), "x", "cleo", "later").await;
    assert_eq!(next(&mut late).await.message.body, "later");
    world.finish().await;
}

#[tokio::test]
async fn a_week_is_kept_and_then_forgotten_and_makes_room() {
    let world = World::start().await;
    known(&world, &["ana"]).await;
    let (ana, service) = (world.user("ana"), world.service());
    send(&service, "ben", "ana", "old").await;
    service.post("/v1/broadcasts", json!({ "body": "fire drill" })).await.expect(202);
    clock::shift(&world.pool, 6 * DAY).await;
    send(&service, "ben", "ana", "newer").await;
    let forget = || projections::messages::forget_old(world.nodes[0].realm().pool());
    forget().await.unwrap();
    assert_eq!(rows(&world, "message").await, 2, "the broadcast is gone within the hour");
    assert_eq!(bodies(&ana).await, ["old", "newer"]);
    clock::shift(&world.pool, DAY).await;
    assert_eq!(bodies(&ana).await, ["newer"], "over, though not yet removed");
    forget().await.unwrap();
    assert_eq!((rows(&world, "message").await, rows(&world, "delivery").await), (1, 1));
    let waiting: i32 =
        sqlx::query_scalar("select waiting from mailbox").fetch_one(&world.pool).await.unwrap();
    assert_eq!(waiting, 1);
    world.finish().await;
}

#[tokio::test]
async fn a_page_of_waiting_messages_goes_on_where_the_last_one_ended() {
    let world = World::start().await;
    known(&world, &["ana"]).await;
    let ana = world.user("ana");
    for n in 0..5 {
        send(&world.service(), "ben", "ana", &n.to_string()).await;
    }
    let (mut met, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ana.get(&format!("/v1/messages?limit=2{cursor}")).await.expect(200);
        let items = page["items"].as_array().unwrap().iter();
        met.extend(items.map(|item| item["body"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(met, ["0", "1", "2", "3", "4"]);
    ana.get("/v1/messages?limit=0").await.problem(422, "invalid_limit");
    ana.get("/v1/messages?cursor=x").await.problem(400, "invalid_parameter");
    world.finish().await;
}

#[tokio::test]
async fn a_reader_who_falls_behind_misses_nothing_and_leaves_nothing_behind() {
    let world = World::start().await;
    known(&world, &["ana"]).await;
    let mut slow = inbox(&world, 0, "ana").await;
    send(&world.service(), "ben", "ana", "0").await;
    assert_eq!(next(&mut slow).await.message.body, "0");
    for n in 1..=100 {
        send(&world.service(), "ben", "ana", &n.to_string()).await;
    }
    for n in 1..=100 {
        assert_eq!(next(&mut slow).await.message.body, n.to_string());
    }
    let mail = world.nodes[0].mail();
    assert_eq!(mail.live_count(), 1);
    drop(slow);
    eventually("nobody is live", async || mail.live_count() == 0).await;
    world.finish().await;
}

#[tokio::test]
async fn who_belongs_to_a_group_by_token_has_its_messages_while_live_and_members_have_them_once() {
    let world = World::with_nodes(2).await;
    known(&world, &["eva", "ben"]).await;
    let (service, path) = (world.service(), "/v1/groups/ward/messages");
    let ward = "ward".parse().unwrap();
    let mut eva = inbox(&world, 1, "eva").await;
    let mut ben = inbox(&world, 1, "ben").await;
    assert!(eva.listen_to(&ward) && ben.listen_to(&ward));
    join(&world, "ward", "ben").await;
    let sent = service.post(path, json!({ "body": "one" })).await.expect(202);
    assert_eq!((&sent["delivered"], &sent["refused"]), (&json!(1), &json!(0)));
    let (to_eva, to_ben) = (next(&mut eva).await, next(&mut ben).await);
    assert_eq!((to_eva.receiver, &*to_eva.message.body), (None, "one"));
    assert!(to_ben.receiver.is_some());
    eva.leave(&ward);
    service.post(path, json!({ "body": "two" })).await.expect(202);
    assert_eq!(next(&mut ben).await.message.body, "two");
    send(&service, "x", "eva", "three").await;
    send(&service, "x", "ben", "three").await;
    for inbox in [&mut eva, &mut ben] {
        assert_eq!(next(inbox).await.message.body, "three");
    }
    // A group that nobody is stored in: it goes to those live, and waits for nobody.
    world.service().delete("/v1/groups/ward/members/ben").await.expect(200);
    assert!(eva.listen_to(&ward));
    let sent = service.post(path, json!({ "body": "four" })).await.expect(202);
    assert_eq!((&sent["delivered"], &sent["refused"]), (&json!(0), &json!(0)));
    assert_eq!(next(&mut eva).await.message.body, "four");
    assert_eq!(next(&mut ben).await.message.body, "four");
    assert_eq!(bodies(&world.user("eva")).await, ["three"]);
    world.finish().await;
}
