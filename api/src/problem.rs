//! Every error leaves the server as a [`Problem`]: `application/problem+json`, RFC 9457.
//!
//! A `code` is stable for ever; `title` and `detail` are for people and may change. What a database
//! or a library said about a failure goes to the log, never to the client.

mod kinds;

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

/// The media type of every error answer (RFC 9457, section 3).
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What a 429 or 503 without a better estimate asks the client to wait.
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// An error on its way to a client. Boxed, so that a `Result` that holds one stays small.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
    extensions: Map<String, Value>,
    cause: Option<String>,
}

/// Why a 5xx happened. Travels in the response's extensions to the edge layer, which logs it once
/// with the request's id; it is never written to the client.
#[derive(Debug, Clone)]
pub struct FailureCause(pub String);

/// The documented shape of an error. More members may follow, depending on `code`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument<'a> {
    /// A stable URI reference of the kind of problem: `/docs#<code>`.
    #[serde(rename = "type")]
    #[schema(example = "/docs#session_closed")]
    kind: String,
    /// The kind of problem in words.
    #[schema(example = "Session closed")]
    title: String,
    /// The HTTP status, again.
    #[schema(example = 410)]
    status: u16,
    /// What happened this time, for people.
    detail: &'a str,
    /// What programs decide by; stable, `snake_case`.
    #[schema(example = "session_closed")]
    code: &'a str,
    /// With 429 and 503: how long to wait before the next try, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(flatten)]
    #[schema(additional_properties, value_type = Object)]
    extensions: &'a Map<String, Value>,
}

impl Problem {
    /// An error with this status and code. `detail` is shown to the client: no personal data of
    /// others, no SQL.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Inner {
            status,
            code,
            detail: detail.into(),
            retry_after: None,
            extensions: Map::new(),
            cause: None,
        }))
    }

    /// Adds an extension member, such as `current` or `reason`. A value that cannot be written as
    /// JSON is left out.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.0.extensions.insert(member.to_owned(), value);
        }
        self
    }

    /// Tells the client to come back after `wait`.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Keeps what went wrong for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The words for people.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Further members, for those who answer in another shape (`compat`).
    pub fn extensions(&self) -> &Map<String, Value> {
        &self.0.extensions
    }

    /// How long the client is asked to wait: always set for 429 and 503.
    fn wait(&self) -> Option<Duration> {
        let must = matches!(
            self.0.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        self.0.retry_after.or(must.then_some(RETRY_AFTER_DEFAULT))
    }

    /// The headers that belong to this error, for those who answer in another shape (`compat`):
    /// `Retry-After`, `WWW-Authenticate`, `Cache-Control`.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(4);
        // 404 and 410 may be cached unless told otherwise (RFC 9110, 15.1).
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.wait() {
            let seconds = wait.as_millis().div_ceil(1000).clamp(1, u128::from(u32::MAX)) as u32;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            // RFC 6750, 3.1: no error code where no token was presented.
            let challenge = match self.0.code {
                "unauthenticated" => "Bearer",
                _ => r#"Bearer error="invalid_token""#,
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        headers
    }

    fn body(&self) -> Vec<u8> {
        let document = ProblemDocument {
            kind: format!("/docs#{}", self.0.code),
            title: title_of(self.0.code),
            status: self.0.status.as_u16(),
            detail: &self.0.detail,
            code: self.0.code,
            retry_after_ms: self.wait().map(|wait| wait.as_millis().max(1) as u64),
            extensions: &self.0.extensions,
        };
        // Strings, numbers and JSON values always serialize.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

/// `session_closed` -> `Session closed`: one word list to keep, not two.
fn title_of(code: &str) -> String {
    let mut title = code.replace('_', " ");
    if let Some(first) = title.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    title
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut headers = self.headers();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        let mut response = (self.0.status, headers, self.body()).into_response();
        if let Some(cause) = self.0.cause {
            response.extensions_mut().insert(FailureCause(cause));
        }
        response
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
