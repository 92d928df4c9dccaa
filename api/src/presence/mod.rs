//! The calls of the contract's *Presence* table. Handlers parse, send, answer.

pub mod as_of;
pub mod bulk;
pub mod claims;
pub mod explain;
pub mod guards;
pub mod heartbeat;
pub mod history;
pub mod log;
pub mod policy;
pub mod rules;
pub mod sessions;
pub mod spans;
pub mod status;

use domain::{Outcome, Refusal};
use projections::{Executed, Receipt};

use crate::problem::Problem;

/// What a command without peculiarities comes to.
pub(crate) fn done(executed: Executed) -> Result<Receipt, Problem> {
    match executed {
        Executed::Done(receipt) => match receipt.outcome {
            Outcome::Refused(ref refusal) => Err(refused(refusal)),
            Outcome::Opened { .. }
            | Outcome::Done
            | Outcome::Closed { .. }
            | Outcome::Guarded { .. } => Ok(receipt),
        },
        Executed::SessionEnded => Err(Problem::session_closed(None, None)),
        Executed::KeyKnown => Err(Problem::internal("a key without a guard")),
    }
}

/// The rules' refusals as the contract names them.
pub(crate) fn refused(refusal: &Refusal) -> Problem {
    let code = match refusal {
        Refusal::SessionClosed => return Problem::session_closed(None, None),
        Refusal::SessionTaken => return Problem::session_taken(),
        other => refusal_code(other),
    };
    Problem::rule(code, refusal.to_string())
}

/// The stable code of a refusal.
pub fn refusal_code(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::SessionClosed => "session_closed",
        Refusal::SessionTaken => "session_taken",
        Refusal::TooManySessions => "too_many_sessions",
        Refusal::TooManyClaims => "too_many_claims",
        Refusal::ClaimOffline => "claim_offline",
        Refusal::ClaimExpiryOutOfRange => "claim_expiry_out_of_range",
        Refusal::OutOfOrder => "out_of_order",
        Refusal::OverlapsHistory => "overlaps_history",
        Refusal::BeforeEpoch => "before_epoch",
        Refusal::InTheFuture => "in_the_future",
        Refusal::AlreadyOpen => "already_open",
        Refusal::NotOpen => "not_open",
    }
}

/// Text that people write: no NUL, which PostgreSQL cannot store, and a length.
pub(crate) fn plain_text(
    name: &str,
    text: Option<String>,
    length_max: usize,
) -> Result<Option<String>, Problem> {
    match text {
        Some(text) if text.contains('\0') || text.chars().count() > length_max => {
            Err(Problem::rule(
                "invalid_text",
                format!("{name}: at most {length_max} characters, no NUL"),
            ))
        }
        text => Ok(text),
    }
}
