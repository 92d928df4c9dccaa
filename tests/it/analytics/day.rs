//! One person's day, and who is told the truth of it.

use serde_json::{Value, json};
use tests::{World, fold, instant};

use super::past::analyst;

fn statuses(day: &Value) -> Vec<&str> {
    day["items"].as_array().unwrap().iter().map(|item| item["status"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn analysts_are_told_a_day_as_others_were_shown_it() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    world.advance_s(70).await;
    let body = json!({ "invisible": true });
    ana.put("/v1/users/ana/visibility", body).await.expect(200);
    world.advance_s(10).await;
    let hidden = ana.login().await;
    world.advance_s(10).await;
    ana.put("/v1/users/ana/claims/manual", json!({ "status": "dnd" })).await.expect(200);
    world.advance_s(10).await;
    ana.logout(&hidden).await.expect(200);
    fold::caught_up(&world.pool).await;
    let path = "/v1/analytics/day?user=ana";
    for client in [ana.clone(), world.auditor(), world.admin()] {
        let day = client.get(path).await.expect(200);
        assert_eq!(statuses(&day), ["online", "dnd"]);
        assert_eq!(day["as_shown"], false);
        assert_eq!(day["sessions"].as_array().unwrap().len(), 2);
        assert_eq!(day["items"][1]["cause"]["type"], "claim_set");
        assert_eq!(day["items"][0]["to"], day["items"][1]["from"]);
        assert_eq!(day["items"][1]["to"], Value::Null);
    }
    let shown = analyst(&world).get(path).await;
    for word in ["invisible", "visibility", "dnd", "cause", &hidden] {
        assert!(!shown.text.contains(word), "{word}: {}", shown.text);
    }
    let shown = shown.expect(200);
    assert_eq!(statuses(&shown), ["online", "offline"]);
    assert_eq!((&shown["as_shown"], &shown["sessions"]), (&json!(true), &json!([])));
    for call in ["time-in-status?user=ana", "time-in-status?zone=Europe/Berlin", "sessions"] {
        let answer = analyst(&world).get(&format!("/v1/analytics/{call}")).await.expect(200);
        for item in answer["items"].as_array().unwrap() {
            let none = json!(0);
            assert_eq!(item.get("dnd_ms").unwrap_or(&none), &none, "{call}: {answer}");
            assert_eq!(item.get("sessions").unwrap_or(&none), &none, "{call}: {answer}");
        }
    }
    let occupancy = analyst(&world).get("/v1/analytics/occupancy").await.expect(200);
    let items = occupancy["items"].as_array().unwrap();
    assert!(items.iter().all(|item| item["dnd"] == 0), "{occupancy}");
    world.finish().await;
}

#[tokio::test]
async fn a_day_is_cut_at_the_midnights_of_its_zone() {
    let world = World::start().await;
    let line = |name: &str, at: &str| {
        json!({ "type": name, "user_id": "ana", "occurred_at": at,
            "session_id": "00000000-0000-0000-0000-000000000001" })
        .to_string()
    };
    let lines = [
        line("session_opened", "2026-03-28T12:00:00Z"),
        line("session_closed", "2026-03-29T23:00:00Z"),
    ];
    let admin = world.admin();
    admin.post_raw("/v1/import", "application/x-ndjson", lines.join("\n")).await.expect(200);
    fold::caught_up(&world.pool).await;
    for (zone, from, to, parts) in [
        ("UTC", "2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z", vec!["online", "offline"]),
        ("Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", vec!["online"]),
    ] {
        let path = format!("/v1/analytics/day?user=ana&date=2026-03-29&zone={zone}");
        let day = world.auditor().get(&path).await.expect(200);
        assert_eq!(statuses(&day), parts, "{zone}");
        let (first, last) = (&day["items"][0], day["items"].as_array().unwrap().last().unwrap());
        let edges = (from.parse().unwrap(), to.parse().unwrap());
        assert_eq!((instant(&first["from"]), instant(&last["to"])), edges, "{zone}");
        assert_eq!((instant(&day["from"]), instant(&day["to"])), edges, "{zone}");
        assert_eq!(day["sessions"].as_array().unwrap().len(), 1);
    }
    world.finish().await;
}
