//! The one function from state to status. The highest rule that applies wins.

use serde::{Deserialize, Serialize};

use crate::presence::{Claim, Presence};
use crate::{Source, Status};

/// Which rule decided, highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// 1. No live session: `offline`.
    NoLiveSession,
    /// 2. A live `admin` claim.
    AdminClaim,
    /// 3. A live `manual` claim.
    ManualClaim,
    /// 4. The highest live `system:<name>` claim.
    SystemClaim,
    /// 5. Any session active: `online`.
    SessionActive,
    /// 6. Else `away`.
    AllSessionsIdle,
}

/// The status of a state in which every lapse that is due has been applied, and the rule behind it.
pub fn status(state: &Presence) -> (Status, Rule) {
    let active = state.sessions.iter().any(|session| session.active);
    if state.sessions.is_empty() {
        (Status::Offline, Rule::NoLiveSession)
    } else if let Some((claim, rule)) = deciding_claim(state, active) {
        (claim.status, rule)
    } else if active {
        (Status::Online, Rule::SessionActive)
    } else {
        (Status::Away, Rule::AllSessionsIdle)
    }
}

/// The claim that decides, if one does.
pub fn deciding(state: &Presence) -> Option<&Claim> {
    if state.sessions.is_empty() {
        return None;
    }
    let active = state.sessions.iter().any(|session| session.active);
    deciding_claim(state, active).map(|(claim, _)| claim)
}

fn deciding_claim(state: &Presence, active: bool) -> Option<(&Claim, Rule)> {
    let mut best: Option<(&Claim, Rule, u8)> = None;
    for claim in state.claims.iter().filter(|claim| active || !claim.while_active) {
        let (rule, rank) = match claim.source {
            Source::Admin => (Rule::AdminClaim, 20),
            Source::Manual => (Rule::ManualClaim, 10),
            Source::System(_) => (Rule::SystemClaim, claim.status.weight()),
        };
        if best.is_none_or(|(_, _, best_rank)| rank > best_rank) {
            best = Some((claim, rule, rank));
        }
    }
    best.map(|(claim, rule, _)| (claim, rule))
}
