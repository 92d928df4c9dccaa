//! HTTP to a server that may be away, or be another one by now.

use std::net::SocketAddr;

use api::auth::Role;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use super::Server;
use crate::client;

/// Where the server is now: it moves with each restart.
pub type Place = watch::Sender<SocketAddr>;

/// A caller with a token.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    place: watch::Receiver<SocketAddr>,
    token: String,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, `Null` if it is no JSON.
    pub body: Value,
}

impl Reply {
    /// The body of a success.
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.body);
        self.body
    }

    /// The problem's code.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl Api {
    /// Somebody with that role, at a server that stays where it is.
    pub fn at(server: &Server, sub: &str, role: Role) -> Self {
        Self::following(&watch::channel(server.address).1, sub, role)
    }

    /// Somebody with that role, at a server that moves.
    pub fn following(place: &watch::Receiver<SocketAddr>, sub: &str, role: Role) -> Self {
        Self::with_token(place, client::token(sub, &[role]))
    }

    /// Somebody with that token.
    pub fn with_token(place: &watch::Receiver<SocketAddr>, token: String) -> Self {
        Self { http: client::http(), place: place.clone(), token }
    }

    /// The same token elsewhere.
    #[must_use]
    pub fn moved_to(&self, server: &Server) -> Self {
        Self { place: watch::channel(server.address).1, ..self.clone() }
    }

    /// The same place with another token.
    #[must_use]
    pub fn with(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Asks; an error where there is no answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Reply, reqwest::Error> {
        let address = *self.place.borrow();
        let mut request =
            self.http.request(method, format!("http://{address}{path}")).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = serde_json::from_slice(&answer.bytes().await?).unwrap_or(Value::Null);
        Ok(Reply { status, headers, body })
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None).await.unwrap()
    }

    /// Logs a user in as that session.
    pub async fn login(&self, user: &str, session: Uuid) -> Result<Reply, reqwest::Error> {
        let body = serde_json::json!({ "user_id": user, "session_id": session });
        self.send(Method::POST, "/v1/sessions", Some(body)).await
    }

    /// Keeps a session alive.
    pub async fn beat(&self, session: Uuid) -> Result<Reply, reqwest::Error> {
        self.send(Method::POST, &format!("/v1/sessions/{session}/heartbeat"), None).await
    }

    /// Ends a session.
    pub async fn logout(&self, session: Uuid) -> Result<Reply, reqwest::Error> {
        self.send(Method::DELETE, &format!("/v1/sessions/{session}"), None).await
    }

    /// A user's status as this server shows it.
    pub async fn status(&self, user: &str) -> String {
        let body = self.get(&format!("/v1/users/{user}/status")).await.ok();
        body["status"].as_str().unwrap_or_default().to_owned()
    }
}
