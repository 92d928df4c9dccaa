//! Endpoints: who may make one, what is refused, what is kept.

use serde_json::{Value, json};
use tests::{Options, World};

const WEBHOOKS: &str = "/v1/webhooks";

#[tokio::test]
async fn admins_make_change_and_end_endpoints_and_the_secret_is_shown_once() {
    let world = World::start().await;
    let admin = world.admin();
    let request = json!({ "url": "https://example.com/in", "users": ["ana"], "groups": ["ward"],
        "event_types": ["session_opened"], "to_status": ["online"] });
    let made = admin.post(WEBHOOKS, request.clone()).await.expect(201);
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_") && standardwebhooks::Webhook::new(secret).is_ok());
    let path = format!("{WEBHOOKS}/{}", made["webhook_id"].as_str().unwrap());
    let read = admin.get(&path).await.expect(200);
    assert!(read["secret"].is_null());
    for (member, value) in request.as_object().unwrap() {
        assert_eq!(&read[member], value);
    }
    assert_eq!(admin.get(WEBHOOKS).await.expect(200)["items"][0]["url"], read["url"]);

    let changed = admin.put(&path, json!({ "users": [], "enabled": false })).await.expect(200);
    assert_eq!((&changed["users"], &changed["enabled"]), (&json!([]), &json!(false)));
    assert_eq!((&changed["groups"], &changed["disabled_by"]), (&json!(["ward"]), &json!("admin")));
    let rotated = admin.put(&path, json!({ "rotate_secret": true, "enabled": true })).await;
    let rotated = rotated.expect(200);
    assert!(rotated["secret"].is_string() && rotated["secret"] != made["secret"]);
    admin.delete(&path).await.expect(204);
    admin.get(&path).await.problem(404, "webhook_not_found");
    admin.delete(&path).await.problem(404, "webhook_not_found");
    assert_eq!(admin.get(WEBHOOKS).await.expect(200)["items"], json!([]));

    // The trail says who did what and when, and holds neither the secret nor a name.
    let trail: Vec<(String, Value, Value)> = sqlx::query_as(
        "select event_type, payload::jsonb, metadata::jsonb from events
          where aggregate_type = 'webhook' order by sequence",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let names: Vec<&str> = trail.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "webhook_created",
            "webhook_changed",
            "webhook_disabled",
            "webhook_enabled",
            "webhook_secret_rotated",
            "webhook_deleted"
        ]
    );
    for (_, payload, metadata) in &trail {
        let text = payload.to_string();
        assert!(!text.contains("whsec_") && !text.contains("ana"), "{text}");
        assert!(metadata["actor"].is_string() && metadata["at"].is_string(), "{metadata}");
    }
    let left: i64 = sqlx::query_scalar("select count(*) from webhook_secret")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
    world.finish().await;
}

#[tokio::test]
async fn only_admins_come_near_endpoints_and_what_makes_no_sense_is_refused() {
    let world = World::start().await;
    let good = json!({ "url": "https://example.com/in" });
    for client in [world.user("ana"), world.service(), world.auditor()] {
        client.get(WEBHOOKS).await.problem(403, "forbidden");
        client.post(WEBHOOKS, good.clone()).await.problem(403, "forbidden");
    }
    let admin = world.admin();
    for (body, status, code) in [
        (json!({}), 400, "missing_field"),
        (json!({ "url": "x" }), 422, "webhook_url_refused"),
        (json!({ "url": "ftp://example.com" }), 422, "webhook_url_refused"),
        (json!({ "url": "https://u:p@example.com" }), 422, "webhook_url_refused"),
        (json!({ "url": "https://a", "nonsense": 1 }), 400, "unknown_field"),
        (json!({ "url": "https://a", "event_types": ["heartbeat"] }), 422, "webhook_refused"),
        (json!({ "url": "https://a", "to_status": ["idle"] }), 422, "invalid_value"),
        (json!({ "url": "https://a", "users": ["a b"] }), 422, "invalid_user_id"),
        (json!({ "url": format!("https://a/{}", "x".repeat(2_048)) }), 422, "webhook_refused"),
    ] {
        admin.post(WEBHOOKS, body).await.problem(status, code);
    }
    let nobody = format!("{WEBHOOKS}/{}", uuid::Uuid::now_v7());
    for call in ["deliveries", "test", "replay"] {
        let path = format!("{nobody}/{call}");
        let answer = if call == "deliveries" {
            admin.get(&path).await
        } else {
            admin.post(&path, json!({ "dead": true })).await
        };
        answer.problem(404, "webhook_not_found");
    }
    admin.get(&format!("{WEBHOOKS}/x")).await.problem(400, "invalid_parameter");
    assert_eq!(admin.get(WEBHOOKS).await.expect(200)["items"], json!([]));
    world.finish().await;
}

#[tokio::test]
async fn private_networks_are_not_called_by_number_or_by_name() {
    let options = Options { webhook_allow_private: false, ..Options::default() };
    let world = World::with(options).await;
    let admin = world.admin();
    for url in [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://0x7f000001/",
        "https://[fd00:ec2::254]/",
    ] {
        let refused = admin.post(WEBHOOKS, json!({ "url": url })).await;
        refused.problem(422, "webhook_url_refused");
    }
    // What a name means is seen when it is called.
    let made = admin.post(WEBHOOKS, json!({ "url": "https://localhost:1/in" })).await.expect(201);
    let path = format!("{WEBHOOKS}/{}", made["webhook_id"].as_str().unwrap());
    let trial = admin.post(&format!("{path}/test"), json!({})).await.expect(200);
    assert_eq!(trial["delivered"], false);
    assert!(trial["error"].as_str().unwrap().contains("private"), "{trial}");
    // Also where it was made while that was allowed.
    let url = json!({ "url": "http://127.0.0.1:1/in" });
    let allowed = World::start().await;
    let trial = {
        let made = allowed.admin().post(WEBHOOKS, url).await.expect(201);
        let path = format!("{WEBHOOKS}/{}/test", made["webhook_id"].as_str().unwrap());
        allowed.admin().post(&path, json!({})).await.expect(200)
    };
    assert_eq!(trial["error"], "cannot be connected to");
    allowed.finish().await;
    world.finish().await;
}
