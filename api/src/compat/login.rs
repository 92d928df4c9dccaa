//! The chat's own login, to which passwords are passed on. They are neither kept nor logged.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::auth::{self, Caller};
use crate::problem::Problem;

/// How long the chat's login may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest answer of it, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Logins passed on at one time; whoever comes then hears 503.
const AT_ONCE_MAX: usize = 64;
/// Where a token may stand in the answer, in the order of being tried.
const TOKEN_NAMES: [&str; 4] = ["token", "access", "access_token", "jwt"];
/// What a token may be nested in.
const NESTS: [&str; 4] = ["data", "tokens", "token", "user"];
/// How deep.
const DEPTH_MAX: usize = 3;

/// The way to the chat's login.
#[derive(Debug)]
pub struct LoginService {
    url: reqwest::Url,
    client: reqwest::Client,
    permits: Semaphore,
}

/// What it answered.
#[derive(Debug)]
pub(crate) struct Answered {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

impl LoginService {
    /// At that address. Errors: TLS cannot be set up.
    pub fn at(url: reqwest::Url) -> Result<Self, reqwest::Error> {
        auth::install_tls();
        let client = reqwest::Client::builder()
            .timeout(ANSWER_TIME_MAX)
            // A password goes where it was told to go, and nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { url, client, permits: Semaphore::new(AT_ONCE_MAX) })
    }

    /// Passes a login on as it came. Errors: 502, 504 where there is no usable answer; 503 where
    /// too many wait.
    pub(crate) async fn pass_on(
        &self,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answered, Problem> {
        let _permit =
            self.permits.try_acquire().map_err(|_| Problem::overloaded(Duration::from_secs(1)))?;
        let mut request = self.client.post(self.url.clone()).body(body);
        for name in [header::CONTENT_TYPE, header::ACCEPT] {
            if let Some(value) = headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        if status.is_redirection() || status.is_informational() {
            return Err(unusable("the login service answers with a redirect"));
        }
        let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(unusable("the login service's answer is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answered { status, content_type, body: body.into() })
    }
}

/// The error's own words name the address, which may hold a secret.
fn failed(error: reqwest::Error) -> Problem {
    if error.is_timeout() {
        let detail = "the login service takes too long";
        return Problem::new(StatusCode::GATEWAY_TIMEOUT, "login_timeout", detail);
    }
    let detail = "the login service cannot be reached";
    Problem::new(StatusCode::BAD_GATEWAY, "login_unreachable", detail)
        .caused_by(error.without_url())
}

fn unusable(detail: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "login_unusable", detail).caused_by(detail)
}

impl Answered {
    /// Whose token the answer holds; nobody, where there is none that is believed here: a wrong
    /// password, or one more step to come.
    pub(crate) async fn caller(&self, app: &App) -> Option<Caller> {
        if !self.status.is_success() {
            return None;
        }
        let answer: Value = serde_json::from_slice(&self.body).ok()?;
        let mut tokens = Vec::new();
        collect_tokens(&answer, DEPTH_MAX, &mut tokens);
        for token in &tokens {
            if let Ok(caller) = app.auth.authenticate(token, chrono::Utc::now()).await {
                return Some(caller);
            }
        }
        if !tokens.is_empty() {
            tracing::warn!("the chat's login answered with a token that is not believed here");
        }
        None
    }
}

fn collect_tokens<'a>(answer: &'a Value, depth: usize, tokens: &mut Vec<&'a str>) {
    let here = TOKEN_NAMES.iter().filter_map(|name| answer.get(name)?.as_str());
    tokens.extend(here);
    if depth > 1 {
        for nested in NESTS.iter().filter_map(|name| answer.get(name)) {
            collect_tokens(nested, depth - 1, tokens);
        }
    }
}

impl IntoResponse for Answered {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        if let Some(content_type) = self.content_type {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_found_where_logins_put_it() {
        for answer in [
            json!({ "token": "T" }),
            json!({ "access": "T", "refresh": "R" }),
            json!({ "user": { "id": 5, "token": "T" } }),
            json!({ "data": { "tokens": { "access_token": "T" } } }),
            json!({ "token": { "jwt": "T" } }),
        ] {
            let mut tokens = Vec::new();
            collect_tokens(&answer, DEPTH_MAX, &mut tokens);
            assert_eq!(tokens, ["T"], "{answer}");
        }
        for answer in [json!({ "otp_required": true }), json!([{ "token": "T" }]), json!("T")] {
            let mut tokens = Vec::new();
            collect_tokens(&answer, DEPTH_MAX, &mut tokens);
            assert!(tokens.is_empty(), "{answer}");
        }
    }
}
