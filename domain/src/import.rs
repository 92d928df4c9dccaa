//! History from elsewhere: recorded at the times its source gives, no part of the present.

use crate::command::{Command, ImportLine, ImportedChange, Outcome, Refusal};
use crate::decide::Draft;
use crate::event::{Body, Event, Reason};
use crate::presence::{Presence, SESSIONS_MAX};
use crate::{SessionId, Status, Timestamp};

/// Decides one imported line, or the end of an import.
pub(crate) fn import(draft: &mut Draft<'_>, command: &Command) -> Result<Outcome, Refusal> {
    if let Command::Import(line) = command {
        import_line(draft, line)?;
    } else {
        end_open_sessions(draft);
    }
    Ok(Outcome::Done)
}

/// Nothing is imported from before it. It is where everybody's history begins that has none yet;
/// in every view instants are exact from long before it on.
pub const EARLIEST: Timestamp = Timestamp::UNIX_EPOCH;

fn import_line(draft: &mut Draft<'_>, line: &ImportLine) -> Result<(), Refusal> {
    let state = &draft.state;
    if line.at < EARLIEST {
        return Err(Refusal::BeforeEpoch);
    }
    let imported = state.imported.as_deref();
    if imported.is_some_and(|imported| line.at < imported.until) {
        return Err(Refusal::OutOfOrder);
    }
    if state.own_since.is_some_and(|own| line.at >= own) {
        return Err(Refusal::OverlapsHistory);
    }
    if line.at > draft.context.now {
        return Err(Refusal::InTheFuture);
    }
    let open = imported.map_or(&[][..], |imported| &imported.open);
    let is_open = open.iter().any(|(session, _)| *session == line.session);
    let session = line.session;
    let body = match line.what {
        ImportedChange::Opened(_) if is_open => return Err(Refusal::AlreadyOpen),
        ImportedChange::Opened(_) if open.len() >= SESSIONS_MAX => {
            return Err(Refusal::TooManySessions);
        }
        ImportedChange::Opened(kind) => Body::SessionOpened {
            session,
            kind,
            lease_ms: 0,
            idle_ms: 0,
            active: true,
            away_after_ms: None,
            imported: true,
        },
        ImportedChange::Heartbeat | ImportedChange::Closed(_) | ImportedChange::Expired(_)
            if !is_open =>
        {
            return Err(Refusal::NotOpen);
        }
        ImportedChange::Heartbeat => Body::Heartbeat { session, idle_ms: 0, imported: true },
        ImportedChange::Closed(reason) => Body::SessionClosed { session, reason, imported: true },
        ImportedChange::Expired(reason) => Body::SessionExpired { session, reason, imported: true },
    };
    draft.record_apart(Event { at: line.at, body });
    Ok(())
}

/// A session left open ends at its last imported event. Earliest first; the user's own order of
/// imported events may step back here, since nothing later is known of the session.
fn end_open_sessions(draft: &mut Draft<'_>) {
    let mut open: Vec<(SessionId, Timestamp)> =
        draft.state.imported.as_ref().map_or_else(Vec::new, |imported| imported.open.clone());
    open.sort_by_key(|(_, at)| *at);
    for (session, at) in open {
        let reason = Reason::LostCarrier;
        let body = Body::SessionClosed { session, reason, imported: true };
        draft.record_apart(Event { at, body });
    }
}

/// The status in the imported history alone.
pub fn status(state: &Presence) -> Status {
    match state.imported.as_deref() {
        Some(imported) if !imported.open.is_empty() => Status::Online,
        Some(_) | None => Status::Offline,
    }
}
