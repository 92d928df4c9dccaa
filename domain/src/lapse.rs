//! What time does by itself: a lease, an activity or a claim that ends, each at its deadline.

use crate::event::{Body, Event};
use crate::presence::{Presence, Session};
use crate::{Reason, Silences, Timestamp};

/// When the session's lease is over.
pub fn lease_end(session: &Session, silences: &Silences) -> Timestamp {
    silences.deadline(session.last_seen, session.lease_ms)
}

/// When an active interaction-driven session turns idle.
pub fn activity_end(session: &Session, silences: &Silences) -> Option<Timestamp> {
    let away_after_ms = session.away_after_ms.filter(|_| session.active)?;
    Some(silences.deadline(session.last_seen, away_after_ms))
}

/// The earliest deadline of anything that time will change, if there is any.
pub fn next_deadline(state: &Presence, silences: &Silences) -> Option<Timestamp> {
    let claims = state.claims.iter().filter_map(|claim| claim.expires_at);
    let sessions = state.sessions.iter().map(|session| {
        let lease = lease_end(session, silences);
        activity_end(session, silences).map_or(lease, |idle| lease.min(idle))
    });
    claims.chain(sessions).min()
}

/// The earliest lapse due at `now`, as the event that records it at its deadline.
pub fn next_due(state: &Presence, silences: &Silences, now: Timestamp) -> Option<Event> {
    if next_deadline(state, silences)? > now {
        return None;
    }
    // At one instant, claims end first, then activity, then leases: the order of the rules.
    let claims = state.claims.iter().filter_map(|claim| {
        let body = Body::ClaimExpired { source: claim.source.clone() };
        claim.expires_at.map(|at| Event { at, body })
    });
    let idle = state.sessions.iter().filter_map(|session| {
        let body = Body::ActivityChanged { session: session.id, active: false };
        activity_end(session, silences).map(|at| Event { at, body })
    });
    let leases = state.sessions.iter().map(|session| {
        let interaction_driven = session.away_after_ms.is_some();
        let reason = if interaction_driven { Reason::IdleTimeout } else { Reason::LostCarrier };
        let body = Body::SessionExpired { session: session.id, reason, imported: false };
        Event { at: lease_end(session, silences), body }
    });
    claims.chain(idle).chain(leases).filter(|event| event.at <= now).min_by_key(|event| event.at)
}

/// The state at `now`: every lapse that is due applied. `None` where nothing is due, as is usual.
pub fn settled(state: &Presence, silences: &Silences, now: Timestamp) -> Option<Presence> {
    let mut event = next_due(state, silences, now)?;
    let mut state = state.clone();
    loop {
        state.apply(&event);
        match next_due(&state, silences, now) {
            Some(next) => event = next,
            None => return Some(state),
        }
    }
}
