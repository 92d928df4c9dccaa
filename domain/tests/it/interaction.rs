//! Interaction-driven sessions: what the person does keeps them, and time alone turns them idle.

use domain::Command::Settle;
use domain::{Policy, Refusal, Status, When};

use crate::given::{
    IDLE_MS, LAPTOP, PHONE, TABLET, at, beat, claimed, claimed_while_active, expired, expired_idle,
    given, heartbeat, opened, poll, polled, turned_active, turned_idle,
};
use Status::{Away, Busy, Dnd, Offline, Online};

#[test]
fn it_takes_its_own_lease_and_threshold_from_the_policy() {
    given([]).when(poll(PHONE), 0).then([polled(PHONE, 0)]).leaves(Online);
    let policy = Policy {
        interaction_away_after_ms: 5_000,
        interaction_lease_ms: 9_000,
        ..Policy::default()
    };
    let then = given([]).policy(policy).when(poll(PHONE), 0);
    let session = &then.0.after.sessions[0];
    assert_eq!((session.lease_ms, session.away_after_ms), (9_000, Some(5_000)));
}

#[test]
fn it_turns_idle_after_the_last_interaction_and_is_over_at_its_lease() {
    given([polled(PHONE, 0)]).when(Settle, 119).then([]);
    given([polled(PHONE, 0)])
        .when(Settle, 120)
        .then([turned_idle(PHONE, 120)])
        .by_way_of([Online, Away])
        .timed([When::Deadline]);
    given([polled(PHONE, 0)]).when(Settle, 299).then([turned_idle(PHONE, 120)]);
    given([polled(PHONE, 0)])
        .when(Settle, 300)
        .then([turned_idle(PHONE, 120), expired_idle(PHONE, 300)])
        .by_way_of([Online, Away, Offline]);
}

#[test]
fn its_end_says_that_nobody_touched_it() {
    given([polled(PHONE, 0), turned_idle(PHONE, 120)])
        .when(Settle, 300)
        .then([expired_idle(PHONE, 300)]);
}

#[test]
fn an_interaction_counts_as_activity_whatever_idleness_it_tells() {
    given([polled(PHONE, 0)])
        .when(heartbeat(PHONE, IDLE_MS), 60)
        .leaves(Online)
        .valid_until(Some(at(180)));
}

#[test]
fn an_interaction_after_it_turned_idle_turns_it_active_again() {
    given([polled(PHONE, 0)])
        .when(heartbeat(PHONE, 0), 200)
        .then([turned_idle(PHONE, 120), beat(PHONE, 200), turned_active(PHONE, 200)])
        .by_way_of([Online, Away, Away, Online])
        .valid_until(Some(at(320)));
}

#[test]
fn an_interaction_taken_in_before_it_turned_idle_wins() {
    given([polled(PHONE, 0)]).when_late(heartbeat(PHONE, 0), 119, 130).then([beat(PHONE, 119)]);
}

#[test]
fn an_interaction_after_its_end_revives_nothing() {
    given([polled(PHONE, 0)])
        .when(heartbeat(PHONE, 0), 300)
        .then([turned_idle(PHONE, 120), expired_idle(PHONE, 300)])
        .refused(Refusal::SessionClosed);
}

#[test]
fn an_interaction_so_late_that_it_turned_idle_since_turns_nothing() {
    let before = [polled(PHONE, 0), turned_idle(PHONE, 120), opened(LAPTOP, 245)];
    given(before).when_late(heartbeat(PHONE, 0), 121, 250).then([beat(PHONE, 121)]).leaves(Online);
    let before = [polled(PHONE, 0), turned_idle(PHONE, 120), opened(LAPTOP, 240)];
    given(before).when_late(heartbeat(PHONE, 0), 121, 250).then([
        beat(PHONE, 121),
        turned_active(PHONE, 240),
        turned_idle(PHONE, 241),
    ]);
}

#[test]
fn a_claim_made_for_activity_yields_when_it_turns_idle() {
    given([polled(PHONE, 0), claimed_while_active("manual", Busy, 1)])
        .when(Settle, 300)
        .then([turned_idle(PHONE, 120), expired_idle(PHONE, 300)])
        .by_way_of([Busy, Away, Offline]);
}

#[test]
fn a_claim_that_is_pinned_stays_until_the_end() {
    given([polled(PHONE, 0), claimed("manual", Dnd, 1)])
        .when(Settle, 300)
        .then([turned_idle(PHONE, 120), expired_idle(PHONE, 300)])
        .by_way_of([Dnd, Dnd, Offline]);
}

#[test]
fn both_kinds_of_session_live_side_by_side() {
    given([polled(PHONE, 0), opened(TABLET, 10)])
        .when(Settle, 300)
        .then([turned_idle(PHONE, 120), expired(TABLET, 130), expired_idle(PHONE, 300)])
        .by_way_of([Online, Online, Away, Offline]);
}
