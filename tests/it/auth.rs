//! Who may call: tokens good and bad, roles, revocation, the rate limit.

use std::time::Duration;

use api::auth::Role;
use chrono::Utc;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};
use tests::node::SECRET;
use tests::{Options, World, within};

/// Within this a revocation holds on every node.
const EVERYWHERE_MAX: Duration = Duration::from_secs(1);

fn claims() -> Value {
    let now = Utc::now().timestamp();
    json!({ "iss": "rollcall", "aud": "rollcall", "sub": "ana", "roles": ["user"],
        "iat": now, "exp": now + 600 })
}

fn with(member: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[member] = value;
    claims
}

fn without(member: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(member);
    claims
}

fn signed(claims: &Value) -> String {
    sign(Algorithm::HS256, claims, SECRET.as_bytes())
}

fn sign(algorithm: Algorithm, claims: &Value, secret: &[u8]) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret))
        .unwrap()
}

/// `{"alg":"none"}`, those claims, no signature.
fn unsigned(claims: &Value) -> String {
    const HEADER: &str = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let claims = signed(claims).split('.').nth(1).unwrap().to_owned();
    format!("{HEADER}.{claims}.")
}

#[tokio::test]
async fn bad_tokens_are_told_apart_and_write_nothing() {
    let world = World::start().await;
    let now = Utc::now().timestamp();
    let good = signed(&claims());
    let tampered = {
        let (head, tail) = good.split_once('.').unwrap();
        let (_, signature) = tail.split_once('.').unwrap();
        let admin = signed(&with("roles", json!(["admin"])));
        format!("{head}.{}.{signature}", admin.split('.').nth(1).unwrap())
    };
    let bad = [
        ("invalid_token", "nonsense".to_owned()),
        ("invalid_token", "a.b.c".to_owned()),
        ("invalid_token", "x".repeat(20_000)),
        ("invalid_token", tampered),
        ("invalid_token", sign(Algorithm::HS256, &claims(), b"another secret, 32 bytes or more")),
        ("invalid_token", sign(Algorithm::HS384, &claims(), SECRET.as_bytes())),
        ("invalid_token", unsigned(&claims())),
        ("token_expired", signed(&with("exp", json!(now - 60)))),
        ("invalid_token", signed(&with("nbf", json!(now + 60)))),
        ("invalid_token", signed(&with("iat", json!(now + 60)))),
        ("invalid_token", signed(&with("iss", json!("somebody")))),
        ("invalid_token", signed(&with("aud", json!("something")))),
        ("invalid_token", signed(&with("sub", json!("a b")))),
        ("invalid_token", signed(&with("sub", json!("")))),
        ("invalid_token", signed(&with("exp", json!("soon")))),
        ("invalid_token", signed(&without("exp"))),
        ("invalid_token", signed(&without("sub"))),
        ("invalid_token", signed(&without("iss"))),
        ("invalid_token", signed(&without("aud"))),
    ];
    let events = world.events().await;
    for (code, token) in bad {
        let client = world.nobody().with_token(Some(token.clone()));
        for _ in 0..2 {
            let refused = client.post("/v1/sessions", json!({})).await;
            let challenge = refused.header("www-authenticate").to_owned();
            assert!(challenge.starts_with("Bearer"), "{challenge:?} for {token}");
            let problem = refused.problem(401, code);
            assert!(!problem.to_string().contains(&token), "the token is quoted");
        }
    }
    assert_eq!(world.events().await, events);
    world.nobody().with_token(Some(good)).post("/v1/sessions", json!({})).await.expect(201);
    world.finish().await;
}

#[tokio::test]
async fn a_little_leeway_a_list_of_audiences_and_strange_roles_are_borne() {
    let world = World::start().await;
    let now = Utc::now().timestamp();
    for claims in [
        with("exp", json!(now - 2)),
        with("nbf", json!(now + 2)),
        with("aud", json!(["other", "rollcall"])),
        with("roles", json!(["user", "emperor"])),
        with("roles", json!("user")),
        with("exp", json!(now as f64 + 60.5)),
    ] {
        let client = world.nobody().with_token(Some(signed(&claims)));
        client.post("/v1/sessions", json!({})).await.expect(201);
    }
    world.finish().await;
}

#[tokio::test]
async fn a_token_without_roles_reads_and_does_nothing_else() {
    let world = World::start().await;
    world.user("ben").login().await;
    let client = world.client("ana", &[]);
    assert_eq!(client.status_word("ben").await, "online");
    client.post("/v1/sessions", json!({})).await.problem(403, "forbidden");
    world.finish().await;
}

#[tokio::test]
async fn a_token_comes_in_the_header_alone_and_once() {
    let world = World::start().await;
    world.user("ana").login().await;
    let token = world.user("ana").token.unwrap();
    let nobody = world.nobody();
    for path in ["/v1/policy", "/v1/users/ana/status"] {
        nobody.get(path).await.problem(401, "unauthenticated");
    }
    let in_url = nobody.get(&format!("/v1/policy?token={token}")).await;
    assert_eq!(in_url.status, 401, "{}", in_url.text);
    let request =
        |value: &str| nobody.request(Method::GET, "/v1/policy").header(AUTHORIZATION, value);
    for value in [&format!("Basic {token}"), "Bearer", "Bearer  ", token.as_str()] {
        nobody.send(request(value)).await.problem(401, "unauthenticated");
    }
    let twice =
        request(&format!("Bearer {token}")).header(AUTHORIZATION, format!("Bearer {token}"));
    nobody.send(twice).await.problem(401, "invalid_token");
    nobody.send(request(&format!("bearer {token}"))).await.expect(200);
    world.finish().await;
}

#[tokio::test]
async fn a_revoked_token_is_refused_on_every_node_within_a_second() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let there = world.at_node(&ana, 1);
    there.get("/v1/policy").await.expect(200);
    let session = ana.login().await;
    let path = format!("/v1/sessions/{session}?revoke_token=true");
    ana.delete(&path).await.expect(200);
    ana.get("/v1/policy").await.problem(401, "token_revoked");
    within(EVERYWHERE_MAX, "the other node refuses it", async || {
        there.get("/v1/policy").await.status == 401
    })
    .await;
    there.get("/v1/policy").await.problem(401, "token_revoked");
    // Another token of the same person is good.
    world.user("ana").login().await;
    world.finish().await;
}

#[tokio::test]
async fn a_token_without_jti_is_revoked_by_its_hash_even_for_nodes_that_come_later() {
    let mut world = World::start().await;
    let ana = world.nobody().with_token(Some(signed(&claims())));
    let session = ana.login().await;
    ana.delete(&format!("/v1/sessions/{session}?revoke_token=true")).await.expect(200);
    ana.get("/v1/policy").await.problem(401, "token_revoked");
    world.add_node().await;
    world.at_node(&ana, 1).get("/v1/policy").await.problem(401, "token_revoked");
    let other = world.nobody().with_token(Some(signed(&with("roles", json!(["user", "x"])))));
    other.get("/v1/policy").await.expect(200);
    world.finish().await;
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_services_never_are() {
    let options = Options { rate_per_second: 1, rate_burst: 5, ..Options::default() };
    let world = World::with(options).await;
    let ana = world.user("ana");
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(ana.get("/v1/policy").await);
    }
    let refused = statuses.pop().unwrap();
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    let problem = refused.problem(429, "rate_limited");
    assert!(problem["retry_after_ms"].as_u64().is_some(), "{problem}");
    assert!(statuses[..5].iter().all(|answer| answer.status == 200));
    // Another token of the same person shares the limit; another person does not.
    assert_eq!(world.user("ana").get("/v1/policy").await.status, 429);
    world.user("ben").get("/v1/policy").await.expect(200);
    let service = world.client("ana", &[Role::Service]);
    for _ in 0..10 {
        service.get("/v1/policy").await.expect(200);
    }
    world.finish().await;
}
