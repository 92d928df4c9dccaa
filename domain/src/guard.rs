//! Guards: check, record and claim in one decision.

use crate::command::{Expect, Guard, GuardClaim, Outcome, Refusal};
use crate::decide::Draft;
use crate::event::{Body, GuardRefusal};
use crate::{Presence, Status, rules};

/// Decides a guard upon a settled state, and records the decision either way.
pub(crate) fn guard(draft: &mut Draft<'_>, guard: &Guard) -> Result<Outcome, Refusal> {
    // A claim that the rules would refuse refuses the whole guard before anything is recorded.
    if let Some(GuardClaim { source, status: Some(claimed), .. }) = &guard.claim {
        draft.may_claim(source, *claimed)?;
    }
    let status = judged(&draft.state, guard);
    let beneath = (status != draft.state.status).then_some(status);
    let verdict = verdict(&draft.state, status, guard);
    let (action, require) = (guard.action.clone(), guard.require.clone());
    if let Err(code) = verdict {
        draft.happen(Body::ActionRefused { action, require, code, beneath });
        return Ok(Outcome::Guarded { verdict, status });
    }
    draft.happen(Body::ActionAllowed { action, require, beneath });
    match &guard.claim {
        Some(GuardClaim { source, status: Some(claimed), .. }) => {
            draft.put_claim(source, *claimed, false, None);
        }
        Some(GuardClaim { source, status: None, .. }) => draft.clear_claim(source),
        None => {}
    }
    Ok(Outcome::Guarded { verdict, status })
}

/// The status that a guard goes by: the user's own, or the one without the claims that it overlooks
/// where the user's own would not do.
fn judged(state: &Presence, guard: &Guard) -> Status {
    let Some(overlooked) = guard.overlook else { return state.status };
    let mut beneath = state.clone();
    beneath.claims.retain(|claim| !claim.source.to_string().starts_with(overlooked));
    let beneath = rules::status(&beneath).0;
    let without = guard.require.contains(&beneath) || !guard.require.contains(&state.status);
    if without { beneath } else { state.status }
}

/// The status speaks first: it is what the caller can tell the person.
fn verdict(state: &Presence, status: Status, guard: &Guard) -> Result<(), GuardRefusal> {
    if !guard.require.contains(&status) {
        return Err(GuardRefusal::StatusRefused);
    }
    if let Some(claim) = &guard.claim {
        let present = state.claim(&claim.source).is_some();
        let as_expected = match claim.expect {
            None => true,
            Some(Expect::Present) => present,
            Some(Expect::Absent) => !present,
        };
        if !as_expected {
            return Err(GuardRefusal::ClaimConflict);
        }
    }
    if guard.if_sequence.is_some_and(|sequence| sequence != state.sequence) {
        return Err(GuardRefusal::SequenceChanged);
    }
    Ok(())
}
