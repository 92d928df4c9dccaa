//! One constructor for each kind of [`Problem`], by status.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use axum::http::StatusCode;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::Problem;

/// 400: the request cannot be understood.
impl Problem {
    /// 400 with a code of its own.
    pub fn bad_request(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 400 `malformed_json`.
    pub fn malformed_json(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::bad_request("malformed_json", detail)
    }

    /// 400 `unknown_field`: a member that the body's type does not have.
    pub fn unknown_field(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::bad_request("unknown_field", detail)
    }

    /// 400 `invalid_parameter`: a value in the path or query that does not parse.
    pub fn invalid_parameter(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::bad_request("invalid_parameter", detail)
    }
}

/// 401 and 403: who asks.
impl Problem {
    fn unauthorized(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
    }

    /// 401 `unauthenticated`: no token was presented.
    pub fn unauthenticated() -> Self {
        Self::unauthorized("unauthenticated", "send `Authorization: Bearer <token>`")
    }

    /// 401 `invalid_token`. `detail` must not help to forge one.
    pub fn invalid_token(detail: &'static str) -> Self {
        Self::unauthorized("invalid_token", detail)
    }

    /// 401 `token_expired`.
    pub fn token_expired() -> Self {
        Self::unauthorized("token_expired", "the token's `exp` has passed")
    }

    /// 401 `token_revoked`.
    pub fn token_revoked() -> Self {
        Self::unauthorized("token_revoked", "the token was revoked")
    }

    /// 403 `forbidden`: the roles do not suffice.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 403 `not_yours`: the thing exists and is another's.
    pub fn not_yours() -> Self {
        Self::new(StatusCode::FORBIDDEN, "not_yours", "this belongs to another user")
    }
}

/// 404, 405: nothing here.
impl Problem {
    /// 404 with a code of its own.
    pub fn missing(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 404 `not_found`: no such route or thing.
    pub fn not_found() -> Self {
        Self::missing("not_found", "there is nothing at this address; see /docs")
    }

    /// 404 `user_not_found`: a user never seen.
    pub fn user_not_found() -> Self {
        Self::missing("user_not_found", "this user was never seen")
    }

    /// 404 `session_not_found`.
    pub fn session_not_found() -> Self {
        Self::missing("session_not_found", "there was never such a session")
    }

    /// 405 `method_not_allowed`; the router adds `Allow`.
    pub fn method_not_allowed() -> Self {
        let detail = "this address does not take this method; see the Allow header";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }
}

/// 409, 410: the current state says no.
impl Problem {
    /// 409 with a code of its own: `status_refused`, `claim_conflict`, `sequence_changed`, ...
    pub fn conflict(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 409 `session_taken`: this `session_id` is another user's.
    pub fn session_taken() -> Self {
        Self::conflict("session_taken", "this session_id belongs to another user")
    }

    /// 409 `status_refused`, with the status as of now as `current`.
    pub fn status_refused(current: impl Serialize) -> Self {
        Self::conflict("status_refused", "the user's status is not one of those required")
            .with("current", current)
    }

    /// 410 with a code of its own.
    pub fn gone(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::GONE, code, detail)
    }

    /// 410 `session_closed`, with the stored `reason` and `closed_at` where they are known.
    pub fn session_closed(reason: Option<&str>, closed_at: Option<DateTime<Utc>>) -> Self {
        let mut problem = Self::gone("session_closed", "the session has ended; log in again");
        if let Some(reason) = reason {
            problem = problem.with("reason", reason);
        }
        if let Some(at) = closed_at {
            problem = problem.with("closed_at", at.to_rfc3339_opts(SecondsFormat::Micros, true));
        }
        problem
    }

    /// 410 `cursor_expired`: the position is beyond the head or no longer held; start anew.
    pub fn cursor_expired() -> Self {
        Self::gone("cursor_expired", "this position cannot be resumed from; read anew")
    }
}

/// 413, 415, 422: what was sent.
impl Problem {
    /// 413 `payload_too_large`, with `limit_bytes`.
    pub fn payload_too_large(limit_bytes: usize) -> Self {
        let detail = format!("the body is longer than {limit_bytes} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
            .with("limit_bytes", limit_bytes)
    }

    /// 415 `unsupported_media_type`.
    pub fn unsupported_media_type(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// 422 with the broken rule's code: `invalid_user_id`, `too_many_sessions`, ...
    pub fn rule(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 422 `invalid_user_id`.
    pub fn invalid_user_id() -> Self {
        Self::rule("invalid_user_id", "a user_id is 1 to 128 of A-Z a-z 0-9 . _ @ : + | -")
    }

    /// A text that is no name of a group: 422.
    pub fn invalid_group() -> Self {
        Self::rule("invalid_group", "a group is 1 to 128 of A-Z a-z 0-9 . _ @ : + | -")
    }

    /// A group that the caller does not belong to: 403.
    pub fn not_a_member() -> Self {
        let detail = "only members may; a service says who belongs to a group, or the token";
        Self::new(StatusCode::FORBIDDEN, "not_a_member", detail)
    }

    /// Whoever listened did not read, and was dropped: 503.
    pub fn too_slow() -> Self {
        Self::unavailable("too_slow", "what waited was too much; resume")
    }
}

/// 429, 500, 503: us.
impl Problem {
    /// 429 `rate_limited`: this subject asks too often.
    pub fn rate_limited(wait: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests; slow down")
            .retry_after(wait)
    }

    /// 500 `internal`. `cause` is logged by the edge layer and not shown.
    pub fn internal(cause: impl Display) -> Self {
        let detail = "something failed here; the log has the details";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).caused_by(cause)
    }

    /// 503 with a code of its own; `Retry-After` defaults to [`RETRY_AFTER_DEFAULT`].
    pub fn unavailable(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }

    /// 503 `overloaded`: a queue is full.
    pub fn overloaded(wait: Duration) -> Self {
        Self::unavailable("overloaded", "the server is busy; nothing was done").retry_after(wait)
    }

    /// 503 `timeout`: the request took too long. Whether a write happened is not known.
    pub fn timeout() -> Self {
        Self::unavailable("timeout", "the request took too long; a write may have happened")
    }

    /// 503 `position_not_reached`: `min_position` did not come within the wait; `head` is how far
    /// this node is.
    pub fn position_not_reached(head: i64) -> Self {
        Self::unavailable("position_not_reached", "this node has not reached that position yet")
            .with("position", head)
    }
}
