//! Extractors whose refusals are [`Problem`]s.
//!
//! 400 where a value cannot be read (syntax, unknown or missing member, wrong type), 422 where it
//! can be read and breaks a rule (out of range, an unknown word, no `user_id`), 413, 415.

use std::borrow::Cow;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::path::ErrorKind as PathError;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::limits::{BODY_BYTES_MAX, BODY_IDLE_MAX};
use crate::problem::Problem;

/// Longest detail that quotes the sender, in bytes.
const DETAIL_BYTES_MAX: usize = 300;

/// A JSON body of at most [`BODY_BYTES_MAX`]; as an answer, a JSON body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

/// A JSON body of at most `BYTES_MAX`.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonUpTo<const BYTES_MAX: usize, T>(pub T);

/// A JSON body of at most [`BODY_BYTES_MAX`]; an empty body, of whatever type, is the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct OptionalJson<T>(pub T);

/// A body of at most `BYTES_MAX`, whatever its type.
#[derive(Debug, Clone, Default)]
pub struct BodyBytes<const BYTES_MAX: usize>(pub Bytes);

/// The query string.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<T>(pub T);

/// The parts of the path that the route's template names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path<T>(pub T);

/// No query string: a route without parameters refuses every one.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.uri.query() {
            None | Some("") => Ok(Self),
            Some(_) => {
                let detail = "this call takes no query parameters";
                Err(Problem::bad_request("unknown_parameter", detail))
            }
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        JsonUpTo::<BODY_BYTES_MAX, T>::from_request(request, state).await.map(|json| Self(json.0))
    }
}

impl<const BYTES_MAX: usize, S: Send + Sync, T: DeserializeOwned> FromRequest<S>
    for JsonUpTo<BYTES_MAX, T>
{
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if body.is_end_stream() {
            return Err(Problem::malformed_json("a JSON body is needed"));
        }
        require_json(&parts.headers)?;
        parse_object(&read_body(body, BYTES_MAX).await?).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if body.is_end_stream() {
            return Ok(Self::default());
        }
        let bytes = read_body(body, BODY_BYTES_MAX).await?;
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        require_json(&parts.headers)?;
        parse_object(&bytes).map(Self)
    }
}

impl<const BYTES_MAX: usize, S: Send + Sync> FromRequest<S> for BodyBytes<BYTES_MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read_body(request.into_body(), BYTES_MAX).await.map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(nul_refused());
        }
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection| {
                let text = rejection.body_text();
                let said = text.split_once(": ").map_or(text.as_str(), |(_, said)| said);
                from_serde(said, QUERY_CODES)
            })
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(path_problem)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
        // Most answers fit, so that the buffer need not grow.
        let mut bytes = Vec::with_capacity(512);
        match serde_json::to_writer(&mut bytes, &self.0) {
            Ok(()) => {
                let mut response = Response::new(Body::from(bytes));
                response.headers_mut().insert(header::CONTENT_TYPE, JSON);
                // What is told of presence is true only now; whoever knows better says so.
                response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
                response
            }
            Err(error) => Problem::internal(error).into_response(),
        }
    }
}

/// Reads a whole body of at most `limit_bytes`. Errors: 413; 400 where the client broke off.
pub async fn read_body(body: Body, limit_bytes: usize) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(Problem::payload_too_large(limit_bytes));
    }
    match Limited::new(body, limit_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Problem::payload_too_large(limit_bytes))
        }
        Err(_) => Err(Problem::bad_request("incomplete_body", "the body broke off")),
    }
}

/// The next bytes of a body that is read as a stream, none at its end. Errors: 400 where the client
/// broke off or paused for longer than [`BODY_IDLE_MAX`].
pub async fn next_chunk(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    let broke_off = |_| Problem::bad_request("incomplete_body", "the body broke off");
    loop {
        let frame = tokio::time::timeout(BODY_IDLE_MAX, body.frame())
            .await
            .map_err(|_| Problem::bad_request("incomplete_body", "the body paused too long"))?;
        let Some(frame) = frame else { return Ok(None) };
        // What is not data is trailers, which nobody here asks for.
        if let Ok(bytes) = frame.map_err(broke_off)?.into_data() {
            return Ok(Some(bytes));
        }
    }
}

/// Reads a JSON text: 400 `malformed_json`, `unknown_field`, `missing_field`, `invalid_field`; 422
/// `invalid_value`, `invalid_user_id`, `invalid_group`, `nul_character`.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    use serde_json::error::Category;
    let value = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => from_serde(&error.to_string(), BODY_CODES),
        // Serde calls it syntax, too, where an object stands that should have one member.
        Category::Syntax if serde_json::from_slice::<IgnoredAny>(bytes).is_ok() => {
            from_serde(&error.to_string(), BODY_CODES)
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::malformed_json(shorten(&error.to_string()))
        }
    })?;
    // PostgreSQL's text has no NUL.
    if has_nul_escape(bytes) { Err(nul_refused()) } else { Ok(value) }
}

/// The same of a text that must be an object: serde would also take an array of its members.
pub fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        return parse_json(bytes);
    }
    parse_json::<IgnoredAny>(bytes)?;
    Err(Problem::bad_request("invalid_field", "a JSON object is expected"))
}

fn nul_refused() -> Problem {
    Problem::rule("nul_character", "text must not contain the character NUL")
}

/// Whether a valid JSON text spells the character NUL: `\u0000` behind an even number of `\`.
fn has_nul_escape(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        if rest[at..].starts_with(br"\u0000") {
            return true;
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    false
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if said.is_some_and(is_json) {
        return Ok(());
    }
    Err(Problem::unsupported_media_type("send `Content-Type: application/json`"))
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let ends_with = |suffix: &str| {
        let start = essence.len().checked_sub(suffix.len());
        start.and_then(|at| essence.get(at..)).is_some_and(|s| s.eq_ignore_ascii_case(suffix))
    };
    essence.eq_ignore_ascii_case("application/json")
        || (essence.contains('/') && ends_with("+json"))
}

/// The codes for what serde says of a body or of a query.
struct Codes {
    unknown: &'static str,
    missing: &'static str,
    invalid: &'static str,
}

const BODY_CODES: &Codes =
    &Codes { unknown: "unknown_field", missing: "missing_field", invalid: "invalid_field" };
const QUERY_CODES: &Codes = &Codes {
    unknown: "unknown_parameter",
    missing: "missing_parameter",
    invalid: "invalid_parameter",
};

/// Serde's errors are words only; these are its own and stable (`serde::de::Error`).
fn from_serde(said: &str, codes: &Codes) -> Problem {
    let detail = shorten(&plainly(said));
    let says = |words: &str| said.contains(words);
    if says("unknown field `") {
        Problem::bad_request(codes.unknown, detail)
    } else if says("missing field `") {
        Problem::bad_request(codes.missing, detail)
    } else if says("a user_id is ") {
        Problem::rule("invalid_user_id", detail)
    } else if says("a group is ") {
        Problem::rule("invalid_group", detail)
    } else if says("invalid value: ") || says("unknown variant `") || says("invalid length ") {
        Problem::rule("invalid_value", detail)
    } else {
        Problem::bad_request(codes.invalid, detail)
    }
}

fn path_problem(rejection: PathRejection) -> Problem {
    match rejection {
        PathRejection::FailedToDeserializePathParams(failed) => match failed.kind() {
            PathError::WrongNumberOfParameters { .. } | PathError::UnsupportedType { .. } => {
                Problem::internal(failed.body_text())
            }
            kind => from_serde(&kind.to_string(), QUERY_CODES),
        },
        rejection => Problem::internal(rejection.body_text()),
    }
}

/// Without the names of our types, which say nothing to those who call.
fn plainly(said: &str) -> Cow<'_, str> {
    for ours in [" struct ", " enum "] {
        if let Some((before, after)) = said.split_once(&format!("expected{ours}")) {
            let rest = after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            return Cow::Owned(format!("{before}expected an object{rest}"));
        }
    }
    Cow::Borrowed(said)
}

fn shorten(text: &str) -> String {
    let end = (0..=DETAIL_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or(text).to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
