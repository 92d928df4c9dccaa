use axum::http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "a secret of at least thirty-two bytes";

async fn auth_with(keys: KeySources) -> Auth {
    let settings =
        AuthSettings { keys, issuer: "rollcall".to_owned(), audience: "rollcall".to_owned() };
    Auth::new(settings, RateLimits::new(200, 1_000)).await.unwrap()
}

async fn auth() -> Auth {
    auth_with(KeySources { secret: Some(Secret(SECRET.to_owned())), jwks: None }).await
}

/// The least that a good token says, changed by `changes`; a null removes a claim.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": "rollcall", "aud": "rollcall", "sub": "ana", "exp": Utc::now().timestamp() + 60
    });
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn signed(changes: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims(changes), &key).unwrap()
}

async fn code(auth: &Auth, token: &str) -> &'static str {
    match auth.authenticate(token, Utc::now()).await {
        Ok(_) => "ok",
        Err(problem) => {
            assert_eq!(problem.status(), 401);
            problem.code()
        }
    }
}

#[tokio::test]
async fn a_good_token_tells_who_asks() {
    let auth = auth().await;
    let token = signed(&json!({
        "roles": ["user", "auditor", "wizard"], "preferred_username": "Ana", "jti": "j-1",
        "groups": ["ward:3"], "aud": ["other", "rollcall"], "iat": Utc::now().timestamp(),
    }));
    let caller = auth.authenticate(&token, Utc::now()).await.unwrap();
    assert_eq!(caller.user_id.as_str(), "ana");
    assert_eq!(caller.roles, RoleSet::EMPTY.with(Role::User).with(Role::Auditor));
    assert_eq!(caller.username.as_deref(), Some("Ana"));
    assert_eq!(caller.groups, ["ward:3"]);
    assert_eq!(caller.token_key, "j-1");
    assert!(caller.require(&[Role::Auditor, Role::Admin]).is_ok());
    assert_eq!(caller.require(&[Role::Admin]).unwrap_err().code(), "forbidden");
    assert!(caller.require_self_or(&"ana".parse().unwrap(), &[]).is_ok());
    assert!(caller.require_self_or(&"bob".parse().unwrap(), &[Role::Service]).is_err());
}

#[tokio::test]
async fn a_minted_token_is_accepted_until_its_time_is_over() {
    let auth = auth().await;
    let signer = TokenSigner::new(SECRET, "rollcall", "rollcall");
    let ttl = std::time::Duration::from_mins(1);
    let token = signer.mint(&"ana".parse().unwrap(), [Role::Admin], ttl).unwrap();
    let caller = auth.authenticate(&token, Utc::now()).await.unwrap();
    assert!(caller.has(Role::Admin) && !caller.has(Role::User));
    assert_eq!(caller.token_key.len(), 36, "a fresh jti");
    // Cached by now: expiry counts all the same, with its leeway.
    let within = caller.expires_at + chrono::TimeDelta::seconds(5);
    assert!(auth.authenticate(&token, within).await.is_ok());
    let over = within + chrono::TimeDelta::milliseconds(1);
    assert_eq!(auth.authenticate(&token, over).await.unwrap_err().code(), "token_expired");
}

#[tokio::test]
async fn required_claims_are_required_and_checked() {
    let auth = auth().await;
    let now = Utc::now().timestamp();
    for (changes, expected) in [
        (json!({}), "ok"),
        (json!({"exp": now - 4}), "ok"),
        (json!({"exp": now - 7}), "token_expired"),
        (json!({"exp": now as f64 + 0.5}), "ok"),
        (json!({"exp": 1e15}), "ok"),
        (json!({"exp": "soon"}), "invalid_token"),
        (json!({"exp": null}), "invalid_token"),
        (json!({"sub": null}), "invalid_token"),
        (json!({"sub": "no such name"}), "invalid_token"),
        (json!({"sub": ""}), "invalid_token"),
        (json!({"iss": null}), "invalid_token"),
        (json!({"iss": "other"}), "invalid_token"),
        (json!({"aud": null}), "invalid_token"),
        (json!({"aud": "other"}), "invalid_token"),
        (json!({"nbf": now + 4}), "ok"),
        (json!({"nbf": now + 30}), "invalid_token"),
        (json!({"iat": now + 4}), "ok"),
        (json!({"iat": now + 30}), "invalid_token"),
        (json!({"roles": "user"}), "ok"),
        (json!({"roles": 7}), "invalid_token"),
    ] {
        assert_eq!(code(&auth, &signed(&changes)).await, expected, "{changes}");
    }
}

#[tokio::test]
async fn alg_none_is_refused() {
    let auth = auth().await;
    let token = signed(&json!({}));
    let mut parts = token.split('.');
    let (_, payload) = (parts.next(), parts.next().unwrap());
    // {"alg":"none"} and {"alg":"None","typ":"JWT"}
    for header in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0"] {
        assert_eq!(code(&auth, &format!("{header}.{payload}.")).await, "invalid_token");
        assert_eq!(code(&auth, &format!("{header}.{payload}")).await, "invalid_token");
    }
}

#[tokio::test]
async fn other_algorithms_of_the_same_secret_are_refused() {
    let auth = auth().await;
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = encode(&Header::new(algorithm), &claims(&json!({})), &key).unwrap();
        assert_eq!(code(&auth, &token).await, "invalid_token");
    }
}

#[tokio::test]
async fn a_token_that_was_tampered_with_is_refused() {
    let auth = auth().await;
    let token = signed(&json!({}));
    let other = signed(&json!({"sub": "bob"}));
    let (signature, body) = (token.rsplit('.').next().unwrap(), other.rsplit_once('.').unwrap().0);
    for token in [format!("{body}.{signature}"), "x".to_owned(), "a.b.c".to_owned()] {
        assert_eq!(code(&auth, &token).await, "invalid_token");
    }
    assert_eq!(code(&auth, &"x".repeat(TOKEN_BYTES_MAX + 1)).await, "invalid_token");
    let foreign = TokenSigner::new("another secret", "rollcall", "rollcall");
    let ttl = std::time::Duration::from_mins(1);
    let foreign = foreign.mint(&"ana".parse().unwrap(), [Role::Admin], ttl).unwrap();
    assert_eq!(code(&auth, &foreign).await, "invalid_token");
}

#[tokio::test]
async fn critical_extensions_that_nobody_understands_are_refused() {
    let auth = auth().await;
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["exp".to_owned()]);
    let token = encode(&header, &claims(&json!({})), &key).unwrap();
    assert_eq!(code(&auth, &token).await, "invalid_token");
}

#[tokio::test]
async fn a_revoked_token_is_refused_though_it_was_cached() {
    let auth = auth().await;
    let token = signed(&json!({}));
    let caller = auth.authenticate(&token, Utc::now()).await.unwrap();
    assert_eq!(caller.token_key.len(), 64, "without a jti, the token's hash");
    auth.revocations().revoke(&caller.token_key, caller.refused_anyway_after());
    assert_eq!(code(&auth, &token).await, "token_revoked");
    auth.tidy(Utc::now()).await;
    assert_eq!(code(&auth, &token).await, "token_revoked");
    assert_eq!(code(&auth, &signed(&json!({"sub": "bob"}))).await, "ok");
}

#[tokio::test]
async fn a_token_comes_as_one_bearer_header() {
    let auth = auth().await;
    let token = signed(&json!({}));
    let admit = async |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        auth.admit(&headers).await.map_or_else(|problem| problem.code(), |_| "ok")
    };
    let good = format!("Bearer {token}");
    assert_eq!(admit(&[&good]).await, "ok");
    assert_eq!(admit(&[&format!("bearer  {token}")]).await, "ok");
    assert_eq!(admit(&[]).await, "unauthenticated");
    assert_eq!(admit(&["Basic YTpi"]).await, "unauthenticated");
    assert_eq!(admit(&["Bearer"]).await, "unauthenticated");
    assert_eq!(admit(&["Bearer "]).await, "unauthenticated");
    assert_eq!(admit(&[&good, &good]).await, "invalid_token");
    assert_eq!(admit(&[&token]).await, "unauthenticated");
}

#[tokio::test]
async fn a_user_who_asks_too_often_waits_and_a_service_does_not() {
    let settings = AuthSettings {
        keys: KeySources { secret: Some(Secret(SECRET.to_owned())), jwks: None },
        issuer: "rollcall".to_owned(),
        audience: "rollcall".to_owned(),
    };
    let auth = Auth::new(settings, RateLimits::new(1, 2)).await.unwrap();
    let headers = |roles: &str| {
        let value = format!("Bearer {}", signed(&json!({"roles": [roles], "sub": roles})));
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(&value).unwrap())])
    };
    let (user, service) = (headers("user"), headers("service"));
    assert!(auth.admit(&user).await.is_ok() && auth.admit(&user).await.is_ok());
    assert_eq!(auth.admit(&user).await.unwrap_err().code(), "rate_limited");
    for _ in 0..10 {
        assert!(auth.admit(&service).await.is_ok());
    }
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let auth = auth().await;
    let caller = auth.authenticate(&signed(&json!({})), Utc::now()).await.unwrap();
    let cache = CallerCache::new(64);
    for n in 0..10_000_u32 {
        cache.insert(token::hash_of(&n.to_string()), caller.clone());
    }
    assert!((16..=64).contains(&cache.len()));
    assert!(cache.get(&token::hash_of("9999")).is_some());
    assert!(cache.get(&token::hash_of("0")).is_none());
}

mod jwks;
