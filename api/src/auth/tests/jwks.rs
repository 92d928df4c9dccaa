use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::get;
use jsonwebtoken::jwk::Jwk;

use super::*;

fn key(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(include_bytes!("rsa.pem")),
        Algorithm::ES256 => EncodingKey::from_ec_pem(include_bytes!("p256.pem")),
        _ => EncodingKey::from_ed_pem(include_bytes!("ed25519.pem")),
    }
    .unwrap()
}

fn public(algorithm: Algorithm, kid: &str) -> Value {
    let mut jwk = Jwk::from_encoding_key(&key(algorithm), algorithm).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    serde_json::to_value(jwk).unwrap()
}

fn signed_by(algorithm: Algorithm, kid: Option<&str>) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    encode(&header, &claims(&json!({})), &key(algorithm)).unwrap()
}

/// A JWKS file of its own for each test.
struct File(PathBuf);

impl File {
    fn new(keys: &Value) -> Self {
        let file = Self(std::env::temp_dir().join(format!("{}.json", uuid::Uuid::now_v7())));
        file.write(keys);
        file
    }

    fn write(&self, keys: &Value) {
        std::fs::write(&self.0, json!({ "keys": keys }).to_string()).unwrap();
    }

    async fn auth(&self) -> Auth {
        auth_with(KeySources { secret: None, jwks: Some(Jwks::File(self.0.clone())) }).await
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const ALL: [Algorithm; 3] = [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256];

#[tokio::test]
async fn eddsa_es256_and_rs256_keys_of_a_file_are_accepted() {
    let keys: Vec<Value> = ALL.map(|algorithm| public(algorithm, "k")).into();
    let file = File::new(&json!(keys));
    let auth = file.auth().await;
    for algorithm in ALL {
        assert_eq!(code(&auth, &signed_by(algorithm, Some("k"))).await, "ok", "{algorithm:?}");
        assert_eq!(code(&auth, &signed_by(algorithm, None)).await, "ok", "{algorithm:?}");
        let strange = signed_by(algorithm, Some("other"));
        assert_eq!(code(&auth, &strange).await, "invalid_token", "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_public_key_is_never_taken_for_a_shared_secret() {
    let rsa = public(Algorithm::RS256, "k");
    let file = File::new(&json!([rsa, { "kty": "oct", "kid": "k", "alg": "HS256", "k": "c2Vj" }]));
    let auth = file.auth().await;
    let spellings = [
        rsa["n"].as_str().unwrap().as_bytes().to_vec(),
        include_bytes!("rsa.pem").to_vec(),
        b"sec".to_vec(),
    ];
    for secret in spellings {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("k".to_owned());
        let key = EncodingKey::from_secret(&secret);
        let token = encode(&header, &claims(&json!({})), &key).unwrap();
        assert_eq!(code(&auth, &token).await, "invalid_token");
    }
}

#[tokio::test]
async fn keys_for_encryption_and_other_algorithms_are_passed_over() {
    let mut enc = public(Algorithm::RS256, "enc");
    enc["use"] = json!("enc");
    let mut pss = public(Algorithm::RS256, "pss");
    pss["alg"] = json!("PS256");
    let file = File::new(&json!([enc, pss, {"kty": "new"}, public(Algorithm::EdDSA, "ed")]));
    let auth = file.auth().await;
    for kid in ["enc", "pss"] {
        assert_eq!(code(&auth, &signed_by(Algorithm::RS256, Some(kid))).await, "invalid_token");
    }
    assert_eq!(code(&auth, &signed_by(Algorithm::EdDSA, Some("ed"))).await, "ok");
}

#[tokio::test]
async fn a_file_that_changes_is_read_again_and_withdrawn_keys_go() {
    let file = File::new(&json!([public(Algorithm::EdDSA, "one")]));
    let auth = file.auth().await;
    let (one, two) =
        (signed_by(Algorithm::EdDSA, Some("one")), signed_by(Algorithm::ES256, Some("two")));
    assert_eq!(code(&auth, &one).await, "ok");
    assert_eq!(code(&auth, &two).await, "invalid_token");
    file.write(&json!([public(Algorithm::ES256, "two")]));
    // The clock of files may be coarse.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    std::fs::File::options().append(true).open(&file.0).unwrap().set_modified(later).unwrap();
    assert_eq!(code(&auth, &two).await, "ok", "an unknown kid is reason enough to look");
    assert_eq!(code(&auth, &one).await, "invalid_token", "cached before, withdrawn since");
    file.write(&json!("broken"));
    auth.tidy(Utc::now()).await;
    assert_eq!(code(&auth, &two).await, "ok", "known keys stay when the file is broken");
}

#[tokio::test]
async fn a_server_does_not_start_with_a_jwks_file_that_is_missing_or_empty() {
    let settings = |path: &str| AuthSettings {
        keys: KeySources { secret: None, jwks: Some(Jwks::at(path)) },
        issuer: "rollcall".to_owned(),
        audience: "rollcall".to_owned(),
    };
    let limits = || RateLimits::new(1, 1);
    assert!(Auth::new(settings("/nonexistent/jwks.json"), limits()).await.is_err());
    let file = File::new(&json!([]));
    assert!(Auth::new(settings(file.0.to_str().unwrap()), limits()).await.is_err());
}

#[tokio::test]
async fn a_url_is_fetched_at_the_start_and_seldom_for_unknown_keys() {
    static FETCHES: AtomicUsize = AtomicUsize::new(0);
    let document = json!({"keys": [public(Algorithm::EdDSA, "one")]}).to_string();
    let router = axum::Router::new().route(
        "/jwks",
        get(move || {
            FETCHES.fetch_add(1, Ordering::SeqCst);
            let document = document.clone();
            async move { document }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let auth = auth_with(KeySources { secret: None, jwks: Some(Jwks::at(&url)) }).await;
    assert_eq!(code(&auth, &signed_by(Algorithm::EdDSA, Some("one"))).await, "ok");
    for _ in 0..5 {
        let unknown = signed_by(Algorithm::EdDSA, Some("two"));
        assert_eq!(code(&auth, &unknown).await, "invalid_token");
    }
    assert_eq!(FETCHES.load(Ordering::SeqCst), 1, "30 s between two fetches");
}

#[tokio::test]
async fn a_url_that_does_not_answer_at_the_start_does_not_keep_the_server_down() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    drop(listener);
    let keys = KeySources { secret: Some(Secret(SECRET.to_owned())), jwks: Some(Jwks::at(&url)) };
    let auth = auth_with(keys).await;
    assert_eq!(code(&auth, &signed(&json!({}))).await, "ok", "the secret's tokens are good");
}
