//! HTTP with a token; answers say what was asked when they are not what was expected.

use std::time::Duration;

use api::auth::{ISSUER_DEFAULT, Role, TokenSigner};
use domain::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::node::SECRET;

/// Longer than any answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long tokens are good.
const TOKEN_TTL: Duration = Duration::from_hours(1);

/// A token for that user.
pub fn token(user_id: &str, roles: &[Role]) -> String {
    let signer = TokenSigner::new(SECRET, ISSUER_DEFAULT, ISSUER_DEFAULT);
    signer.mint(&user_id.parse().unwrap(), roles.iter().copied(), TOKEN_TTL).unwrap()
}

/// A token of a user whom its issuer has in these groups.
pub fn token_in(user_id: &str, groups: &[&str]) -> String {
    token_until(user_id, groups, TOKEN_TTL.as_secs() as i64)
}

/// A token that ends in so many seconds; servers take it for 5 s longer.
pub fn token_until(user_id: &str, groups: &[&str], ends_in_s: i64) -> String {
    let now = chrono::Utc::now().timestamp();
    let claims = serde_json::json!({ "iss": ISSUER_DEFAULT, "aud": ISSUER_DEFAULT, "sub": user_id,
        "roles": ["user"], "groups": groups, "exp": now + ends_in_s });
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// What clients of one test share: it belongs to that test's runtime.
pub fn http() -> reqwest::Client {
    api::auth::install_tls();
    reqwest::Client::builder().timeout(ANSWER_MAX).no_proxy().build().unwrap()
}

/// Somebody who calls one node.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// The node's.
    pub base_url: String,
    /// Sent with every request, if there is one.
    pub token: Option<String>,
}

impl Client {
    /// With a token, or without.
    pub fn new(http: reqwest::Client, base_url: &str, token: Option<String>) -> Self {
        Self { http, base_url: base_url.to_owned(), token }
    }

    /// The same somebody at another node.
    #[must_use]
    pub fn at(&self, base_url: &str) -> Self {
        Self { base_url: base_url.to_owned(), ..self.clone() }
    }

    /// The same node, with another token.
    #[must_use]
    pub fn with_token(&self, token: Option<String>) -> Self {
        Self { token, ..self.clone() }
    }

    /// A request to be completed.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base_url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends, and reads the whole answer.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let request = request.build().unwrap();
        let asked = format!("{} {}", request.method(), request.url());
        let response = self.http.execute(request).await.unwrap_or_else(|e| panic!("{asked}: {e}"));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap_or_else(|e| panic!("{asked}: {e}"));
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { asked, status, headers, text, body }
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// `PUT` with a JSON body.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    /// `POST` of any bytes.
    pub async fn post_raw(&self, path: &str, kind: &str, body: impl Into<Vec<u8>>) -> Answer {
        let request = self.request(Method::POST, path).header(CONTENT_TYPE, kind);
        self.send(request.body(body.into())).await
    }

    /// Logs in; the session's name.
    pub async fn login(&self) -> String {
        let opened = self.post("/v1/sessions", serde_json::json!({})).await.expect(201);
        opened["session_id"].as_str().unwrap().to_owned()
    }

    /// Logs in, idle for so long.
    pub async fn login_idle(&self, idle_ms: u64) -> String {
        let body = serde_json::json!({ "idle_ms": idle_ms });
        let opened = self.post("/v1/sessions", body).await.expect(201);
        opened["session_id"].as_str().unwrap().to_owned()
    }

    /// A heartbeat.
    pub async fn beat(&self, session: &str) -> Answer {
        self.post(&format!("/v1/sessions/{session}/heartbeat"), serde_json::json!({})).await
    }

    /// A heartbeat of a person idle for so long.
    pub async fn beat_idle(&self, session: &str, idle_ms: u64) -> Answer {
        let body = serde_json::json!({ "idle_ms": idle_ms });
        self.post(&format!("/v1/sessions/{session}/heartbeat"), body).await
    }

    /// Logs out.
    pub async fn logout(&self, session: &str) -> Answer {
        self.delete(&format!("/v1/sessions/{session}")).await
    }

    /// A user's Status.
    pub async fn status(&self, user_id: &str) -> Value {
        self.get(&format!("/v1/users/{}/status", user_id.replace('|', "%7C"))).await.expect(200)
    }

    /// A user's status, its word alone.
    pub async fn status_word(&self, user_id: &str) -> String {
        self.status(user_id).await["status"].as_str().unwrap().to_owned()
    }
}

/// An instant of an answer.
#[track_caller]
pub fn instant(value: &Value) -> Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("no instant: {value}"));
    let wire = text.len() == "2026-01-01T00:00:00.000000Z".len() && text.ends_with('Z');
    assert!(wire, "not RFC 3339 in UTC with microseconds: {text}");
    text.parse().unwrap()
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    asked: String,
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
    /// The body as JSON, or null.
    pub body: Value,
}

impl Answer {
    /// The body of an answer that must have this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.text);
        self.body
    }

    /// The body of a problem that must have this status and code, and the shape of RFC 9457.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        let said = (self.status, self.body["code"].as_str());
        assert_eq!(said, (status, Some(code)), "{}: {}", self.asked, self.text);
        let kind = self.header("content-type");
        assert_eq!(kind, "application/problem+json", "{}", self.asked);
        assert_eq!(self.body["status"], status, "{}", self.asked);
        for member in ["type", "title", "detail"] {
            assert!(self.body[member].is_string(), "{member}: {}", self.text);
        }
        let leaks = ["SQLSTATE", "sqlx", "backtrace", "panicked", "select ", "insert into"];
        assert!(!leaks.iter().any(|leak| self.text.contains(leak)), "{}", self.text);
        self.body
    }

    /// A header's text, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}
