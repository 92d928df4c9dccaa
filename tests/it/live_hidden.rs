//! Invisible users: no frame, count, version or wake-up of the live feeds gives them away.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Client, EventStream, Socket, World};

/// What an invisible user does while others watch, and what they must not hear of.
async fn live_in_hiding(ana: &Client, service: &Client) {
    let phone = ana.login().await;
    let laptop = ana.login_idle(400_000).await;
    ana.beat_idle(&phone, 400_000).await.expect(200);
    ana.beat(&phone).await.expect(200);
    let body = json!({ "status": "busy", "text": "a secret" });
    ana.put("/v1/users/ana/claims/manual", body).await.expect(200);
    let guard = json!({ "action": "start", "require": ["busy"],
        "claim": { "source": "system:timer", "status": "dnd" } });
    service.post("/v1/users/ana/guard", guard).await.expect(200);
    ana.delete("/v1/users/ana/claims/manual").await.expect(200);
    ana.logout(&laptop).await.expect(200);
}

async fn set_invisible(ana: &Client, invisible: bool) {
    let body = json!({ "invisible": invisible });
    ana.put("/v1/users/ana/visibility", body).await.expect(200);
}

#[tokio::test]
async fn others_hear_of_an_invisible_user_nothing_by_any_feed_and_the_entitled_the_truth() {
    let world = World::start().await;
    let (ana, bob, service) = (world.user("ana"), world.user("bob"), world.service());
    let phone = ana.login().await;
    ana.logout(&phone).await.expect(200);
    set_invisible(&ana, true).await;
    let mut stream = EventStream::open(&bob, "/v1/stream", None).await;
    let mut named = EventStream::open(&bob, "/v1/stream?users=ana", None).await;
    let mut socket = Socket::open(&bob).await;
    let snapshot = stream.expect("snapshot").await;
    assert_eq!(snapshot.data["items"][0], bob.status("ana").await);
    let watched = socket.watch(&["ana"]).await;
    assert_eq!(
        (&watched["items"][0], named.expect("snapshot").await.data["items"].clone()),
        (&bob.status("ana").await, watched["items"].clone())
    );
    let mut truth = EventStream::open(&service, "/v1/stream?users=ana", None).await;
    truth.expect("snapshot").await;
    let mut own = EventStream::open(&ana, "/v1/stream?users=ana", None).await;
    own.expect("snapshot").await;
    let position = snapshot.id.unwrap();
    live_in_hiding(&ana, &service).await;
    set_invisible(&ana, false).await;

    // The first that others hear is that she is there, as she is now.
    let now = bob.status("ana").await;
    let heard = [
        named.expect("status_changed").await.data,
        socket.expect("status_changed").await,
        stream.expect("status_changed").await.data,
    ];
    // bob's own login came before it, to the stream of all.
    assert_eq!(heard[2]["user_id"], "bob");
    let heard = [heard[0].clone(), heard[1].clone(), stream.expect("status_changed").await.data];
    for item in &heard {
        assert_eq!((&item["status"], &item["since"]), (&now["status"], &now["since"]), "{item}");
        assert_eq!((&item["last_seen"], &item["invisible"]), (&now["last_seen"], &Value::Null));
        assert!(!item.to_string().contains("secret"));
    }
    let polled = bob.get(&format!("/v1/changes?since={position}&users=ana")).await.expect(200);
    assert_eq!(polled["items"].as_array().unwrap().len(), 1, "{polled}");
    assert_eq!(polled["items"][0]["position"], heard[0]["position"]);

    for stream in [&mut truth, &mut own] {
        let mut words: Vec<(String, Option<bool>, bool)> = Vec::new();
        while words.last().is_none_or(|(word, hidden, _)| word != "dnd" || *hidden != Some(false)) {
            let item = stream.expect("status_changed").await.data;
            let status = item["status"].as_str().unwrap().to_owned();
            let (hidden, has_text) = (item["invisible"].as_bool(), !item["text"].is_null());
            match words.last_mut() {
                // The text of a status may come after it; nothing else comes twice.
                Some((last, was, text)) if *last == status && *was == hidden => {
                    assert!(!*text && has_text, "told twice: {item}");
                    *text = true;
                }
                Some(_) | None => words.push((status, hidden, has_text)),
            }
        }
        let seen: Vec<&str> = words.iter().map(|(word, ..)| word.as_str()).collect();
        assert_eq!(seen, ["online", "away", "online", "busy", "dnd", "dnd"], "the truth");
    }
    world.finish().await;
}

#[tokio::test]
async fn nothing_that_an_invisible_user_does_wakes_a_poll() {
    let world = World::start().await;
    let (ana, bob, service) = (world.user("ana"), world.user("bob"), world.service());
    set_invisible(&ana, true).await;
    let position = bob.get("/v1/changes").await.expect(200)["position"].as_i64().unwrap();
    let poll = format!("/v1/changes?since={position}&wait_ms=2000");
    let waiting = tokio::spawn({
        let (bob, poll) = (bob.clone(), poll.clone());
        async move { (bob.get(&poll).await.expect(200), tokio::time::Instant::now()) }
    });
    let began = tokio::time::Instant::now();
    tests::eventually("bob waits", async || world.nodes[0].live().hub.listeners() == 1).await;
    live_in_hiding(&ana, &service).await;
    let (answer, woken) = waiting.await.unwrap();
    assert_eq!((&answer["items"], &answer["full"]), (&json!([]), &json!(false)));
    assert!(woken - began >= Duration::from_millis(1_900), "it waited to its end");
    let again = bob.get(&format!("/v1/changes?since={position}")).await.expect(200);
    assert_eq!(again["items"], json!([]));
    let truth = service.get(&format!("/v1/changes?since={position}")).await.expect(200);
    assert!(truth["items"].as_array().unwrap().len() > 4);
    let full = bob.get("/v1/changes").await.expect(200);
    assert!(!full.to_string().contains("secret"));
    assert_eq!(full["items"][0], bob.status("ana").await, "as a read shows it");
    world.finish().await;
}
