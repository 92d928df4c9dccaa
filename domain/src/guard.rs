//! Guards: check, record and claim in one decision.

use crate::Presence;
use crate::command::{Expect, Guard, GuardClaim, Outcome, Refusal};
use crate::decide::Draft;
use crate::event::{Body, GuardRefusal};

/// Decides a guard upon a settled state, and records the decision either way.
pub(crate) fn guard(draft: &mut Draft<'_>, guard: &Guard) -> Result<Outcome, Refusal> {
    // A claim that the rules would refuse refuses the whole guard before anything is recorded.
    if let Some(GuardClaim { source, status: Some(claimed), .. }) = &guard.claim {
        draft.may_claim(source, *claimed)?;
    }
    let status = draft.state.status;
    let verdict = verdict(&draft.state, guard);
    let (action, require) = (guard.action.clone(), guard.require.clone());
    if let Err(code) = verdict {
        draft.happen(Body::ActionRefused { action, require, code });
        return Ok(Outcome::Guarded { verdict, status });
    }
    draft.happen(Body::ActionAllowed { action, require });
    match &guard.claim {
        Some(GuardClaim { source, status: Some(claimed), .. }) => {
            draft.put_claim(source, *claimed, false, None);
        }
        Some(GuardClaim { source, status: None, .. }) => draft.clear_claim(source),
        None => {}
    }
    Ok(Outcome::Guarded { verdict, status })
}

/// The status speaks first: it is what the caller can tell the person.
fn verdict(state: &Presence, guard: &Guard) -> Result<(), GuardRefusal> {
    if !guard.require.contains(&state.status) {
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
