//! Errors in the words of the system that hears them.

use std::borrow::Cow;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{OpenApi as Document, RefOr};

use crate::limits::BODY_BYTES_MAX;
use crate::problem::{PROBLEM_JSON, ProblemDocument};
use crate::routes::answers;

/// What a problem says.
#[derive(Debug, Deserialize)]
pub(crate) struct Said {
    /// The kind in words.
    pub(crate) title: String,
    /// What happened this time.
    pub(crate) detail: String,
    /// The stable code.
    pub(crate) code: String,
}

/// How a system tells an error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Its members.
    tell: fn(Said) -> Map<String, Value>,
    name: fn() -> Cow<'static, str>,
    schema: fn() -> RefOr<Schema>,
}

impl Shape {
    /// As `tell` does, described by `T`.
    pub(crate) const fn of<T: ToSchema>(tell: fn(Said) -> Map<String, Value>) -> Self {
        Self { tell, name: T::name, schema: T::schema }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Tells a problem in the system's shape; every other answer stays as it is.
pub(crate) async fn reshape(answer: Response, shape: Shape) -> Response {
    if answer.headers().get(header::CONTENT_TYPE) != Some(&PROBLEM_JSON) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let bytes = to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default();
    let Ok(said) = serde_json::from_slice::<Said>(&bytes) else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    // The replaced systems' clients know 400 for all that is wrong with what they sent.
    if parts.status == StatusCode::UNPROCESSABLE_ENTITY {
        parts.status = StatusCode::BAD_REQUEST;
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, JSON);
    Response::from_parts(parts, Body::from(Value::Object((shape.tell)(said)).to_string()))
}

/// What every call of an adapter may answer besides what it says itself.
const ALWAYS: [(&str, &str); 6] = [
    ("400", "Malformed, or breaks a rule"),
    ("401", "No token, or none that is believed"),
    ("403", "The roles do not suffice"),
    ("404", "Nobody and nothing of that name"),
    ("409", "The current state says no"),
    ("429", "Too many requests; see Retry-After"),
];

/// What every call that reads a body may answer, too.
const READING: [(&str, &str); 2] =
    [("413", "The body is too long"), ("415", "Neither JSON nor a form")];

/// Describes the errors in the system's shape.
pub(crate) fn describe(document: &mut Document, shape: &Shape) {
    let (name, problem) = ((shape.name)(), ProblemDocument::name());
    let told = ("application/json", name.as_ref());
    // A time limit is the edge's, which knows no shapes.
    let late = [told, ("application/problem+json", problem.as_ref())];
    for operation in answers::operations(document) {
        let reading = if answers::reads_json(operation) { &READING[..] } else { &[] };
        for (status, description) in ALWAYS.iter().chain(reading) {
            answers::add(operation, status, description, &[told]);
        }
        answers::add(operation, "503", "Not now, or the time was up; see Retry-After", &late);
    }
    let components = document.components.get_or_insert_default();
    components.schemas.insert((shape.name)().into_owned(), (shape.schema)());
}
