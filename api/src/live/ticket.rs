//! `POST /v1/ws/ticket`: what a browser offers instead of its token.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use projections::ticket;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::extract::{Json, NoQuery};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::Instant;

/// What a subprotocol begins with that offers a ticket.
pub(super) const TICKET_PREFIX: &str = "ticket.";
/// Longest ticket that is looked at, in bytes.
const TICKET_BYTES_MAX: usize = 128;

/// A ticket.
#[derive(Debug, Serialize, ToSchema)]
pub struct TicketBody {
    /// To be offered once as the WebSocket subprotocol `ticket.<value>`, on any node.
    ticket: String,
    /// Until when.
    expires_at: Instant,
}

/// Makes a ticket that stands for the caller's token, once, for 30 s.
#[utoipa::path(post, path = "/v1/ws/ticket", tag = "Live",
    operation_id = "make_ticket",
    responses((status = 201, body = TicketBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn make(State(app): State<App>, caller: Caller, _: NoQuery) -> Result<Response, Problem> {
    // Some 240 random bits.
    let ticket = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let identity = caller.to_stored();
    let expires_at = ticket::make(app.realm.pool(), hash_of(&ticket), &identity).await?;
    let body = TicketBody { ticket, expires_at: Instant(expires_at) };
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// Whoever the ticket stands for. Errors: 401 `invalid_token`, also for one that was used.
pub(super) async fn redeem(app: &App, ticket: &str) -> Result<Caller, Problem> {
    let refused = || Problem::invalid_token("the ticket is not known, was used or is too old");
    if ticket.len() > TICKET_BYTES_MAX {
        return Err(refused());
    }
    let stored = ticket::redeem(app.realm.pool(), hash_of(ticket)).await?.ok_or_else(refused)?;
    app.auth.admit_stored(stored)
}

fn hash_of(ticket: &str) -> [u8; 32] {
    Sha256::digest(ticket.as_bytes()).into()
}
