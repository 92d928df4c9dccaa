//! What a viewer may see of a user. The one redaction function: every output goes through it.

use crate::presence::{Claim, Presence};
use crate::{Status, Timestamp, rules};

/// For whom a status is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The user itself, services, auditors and admins: the truth.
    Entitled,
    /// Everybody else: an invisible user is `offline` in everything.
    Others,
}

/// A user as shown to somebody.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The status.
    pub status: Status,
    /// When the shown status began.
    pub since: Timestamp,
    /// Latest accepted heartbeat or login; frozen while invisible.
    pub last_seen: Option<Timestamp>,
    /// What the deciding claim says.
    pub text: Option<String>,
    /// For those entitled to it.
    pub truth: Option<Truth>,
}

/// What only the user itself, services, auditors and admins see.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// When the person last did something.
    pub last_activity: Option<Timestamp>,
    /// Count of live sessions.
    pub sessions: usize,
    /// Count of transitions.
    pub sequence: i64,
    /// Whether others are shown `offline`.
    pub invisible: bool,
    /// Claims not taken back.
    pub claims: Vec<Claim>,
}

/// The user as `audience` may see it. `state` has every due lapse applied.
pub fn shown(state: &Presence, audience: Audience) -> Shown {
    match audience {
        Audience::Others if state.invisible => Shown {
            status: Status::Offline,
            since: state.shown_since,
            last_seen: veiled_last_seen(state),
            text: None,
            truth: None,
        },
        Audience::Others => plain(state, None),
        Audience::Entitled => plain(
            state,
            Some(Truth {
                last_activity: state.latest_activity(),
                sessions: state.sessions.len(),
                sequence: state.sequence,
                invisible: state.invisible,
                claims: state.claims.clone(),
            }),
        ),
    }
}

/// A status before and after a transition, as `audience` is shown them. `invisible`: whether the
/// user was invisible before it, and after it.
pub fn transition(
    [from, to]: [Status; 2],
    [was_invisible, is_invisible]: [bool; 2],
    audience: Audience,
) -> [Status; 2] {
    let veil = |status, invisible| match audience {
        Audience::Others if invisible => Status::Offline,
        Audience::Others | Audience::Entitled => status,
    };
    [veil(from, was_invisible), veil(to, is_invisible)]
}

fn veiled_last_seen(state: &Presence) -> Option<Timestamp> {
    state.veil.as_ref().map_or_else(|| state.latest_seen(), |veil| veil.last_seen)
}

fn plain(state: &Presence, truth: Option<Truth>) -> Shown {
    // The end of an invisible stretch is a change to others, not to those who saw the truth.
    let since = if truth.is_some() { state.since } else { state.shown_since };
    Shown {
        status: state.status,
        since,
        last_seen: if truth.is_some() { state.latest_seen() } else { veiled_last_seen(state) },
        text: rules::deciding(state).and_then(|claim| claim.text.clone()),
        truth,
    }
}
