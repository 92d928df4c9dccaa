//! Logins that the chat's own login service answers.

use std::net::Ipv4Addr;
use std::time::Duration;

use api::auth::Role;
use api::compat::CompatSettings;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use chrono::Utc;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tests::node::SECRET;
use tests::{Options, World, client};
use tokio::net::TcpListener;

const LOGIN: &str = "/api/users/login/";
const USER: &str = "/api/users/admin/users/ana/online-status/";

/// A token with a name that people call its bearer by.
fn named_token() -> String {
    let now = Utc::now().timestamp();
    let claims = json!({ "iss": "rollcall", "aud": "rollcall", "sub": "ana", "roles": ["user"],
        "iat": now, "exp": now + 600, "preferred_username": "Ana Lima" });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

/// Answers by the user name that it is given.
async fn answer(headers: HeaderMap, body: Bytes) -> axum::response::Response {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let kind = headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let asked = |name: &str| text.contains(name);
    let json = [(header::CONTENT_TYPE, "application/vnd.chat+json")];
    if asked("wrong") {
        let told = json!({ "non_field_errors": ["no"] }).to_string();
        return (StatusCode::UNAUTHORIZED, json, told).into_response();
    }
    if asked("moved") {
        return (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")], "").into_response();
    }
    if asked("endless") {
        return (StatusCode::OK, json, "x".repeat(70_000)).into_response();
    }
    if asked("slow") {
        std::future::pending::<()>().await;
    }
    if asked("two steps") {
        return (StatusCode::ACCEPTED, json, r#"{"otp_required": true}"#).into_response();
    }
    let token = if asked("foreign") { "a.b.c".to_owned() } else { named_token() };
    let body = json!({ "data": { "access": token, "refresh": "r" }, "heard": text, "as": kind });
    (StatusCode::CREATED, json, body.to_string()).into_response()
}

async fn login_service() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/login/", listener.local_addr().unwrap());
    let router = Router::new().route("/login/", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

async fn world_with_login(url: Option<String>) -> World {
    let url = if let Some(url) = url { url } else { login_service().await };
    let chat_login_url = Some(url.parse().unwrap());
    let compat = CompatSettings { chat_login_url, ..CompatSettings::default() };
    World::with(Options { compat, ..Options::default() }).await
}

#[tokio::test]
async fn a_login_is_passed_on_and_its_answer_back_and_a_session_opens() {
    let world = world_with_login(None).await;
    let sent = "username=ana&password=hush";
    let kind = "application/x-www-form-urlencoded";
    let answer = world.nobody().post_raw(LOGIN, kind, sent).await;
    assert_eq!(answer.header("content-type"), "application/vnd.chat+json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.expect(201);
    assert_eq!((&body["heard"], &body["as"]), (&json!(sent), &json!(kind)));
    let seen = world.admin().get(USER).await.expect(200);
    assert_eq!((&seen["online_status"], &seen["username"]), (&json!("online"), &json!("Ana Lima")));
    // What comes next is the same session.
    let token = body["data"]["access"].as_str().unwrap().to_owned();
    let ana = world.nobody().with_token(Some(token));
    let own = ana.post("/api/users/heartbeat/", json!({})).await.expect(200);
    assert_eq!(own["username"], "Ana Lima");
    assert_eq!(world.count("ana", "session_opened").await, 1);
    ana.post("/api/users/logout/", json!({})).await.expect(200);
    assert_eq!(world.admin().get(USER).await.expect(200)["online_status"], "offline");
    world.finish().await;
}

#[tokio::test]
async fn what_is_no_login_is_passed_back_and_opens_nothing() {
    let world = world_with_login(None).await;
    let events = world.events().await;
    for (user, status, member) in [
        ("wrong", 401, "non_field_errors"),
        ("two steps", 202, "otp_required"),
        ("foreign", 201, "data"),
    ] {
        let answer = world.nobody().post(LOGIN, json!({ "username": user })).await;
        assert_eq!(answer.header("content-type"), "application/vnd.chat+json");
        assert!(!answer.expect(status)[member].is_null());
    }
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn a_login_service_that_fails_redirects_or_hangs_is_named() {
    let world = world_with_login(None).await;
    for (user, status, code) in [
        ("moved", 502, "login_unusable"),
        ("endless", 502, "login_unusable"),
        ("slow", 504, "login_timeout"),
    ] {
        let told = world.nobody().post(LOGIN, json!({ "username": user })).await.expect(status);
        assert_eq!(told["code"], code);
    }
    let large = json!({ "username": "u".repeat(70_000) });
    world.nobody().post(LOGIN, large).await.expect(413);
    world.finish().await;
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/", unused.local_addr().unwrap());
    drop(unused);
    let world = world_with_login(Some(url.clone())).await;
    let began = std::time::Instant::now();
    let answer = world.nobody().post(LOGIN, json!({})).await;
    assert!(!answer.text.contains("127.0.0.1"), "{}", answer.text);
    assert_eq!(answer.expect(502)["code"], "login_unreachable");
    assert!(began.elapsed() < Duration::from_secs(10));
    world.finish().await;
}

#[tokio::test]
async fn a_name_is_what_the_last_token_said_and_else_the_id() {
    let world = World::start().await;
    let admin = world.admin();
    let name = async || admin.get(USER).await.expect(200)["username"].clone();
    let plain = client::token("ana", &[Role::User]);
    for (token, expected) in [(plain, "ana"), (named_token(), "Ana Lima")] {
        let ana = world.nobody().with_token(Some(token));
        let own: Value = ana.post(LOGIN, json!({})).await.expect(200);
        assert_eq!((&own["user"]["username"], name().await), (&json!(expected), json!(expected)));
    }
    let list = admin.get("/api/users/all-users/").await.expect(200);
    assert_eq!(list["users"][0]["username"], "Ana Lima");
    world.finish().await;
}
