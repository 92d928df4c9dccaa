//! Signs of life: what they renew, what they turn, and when they come too late.

use domain::{Body, Policy, Refusal, Status, When};

use crate::given::{
    IDLE_MS, LAPTOP, PHONE, at, beat, beat_idle, claimed, closed, expired, fold, given, heartbeat,
    opened, opened_idle, turned_active, turned_idle,
};
use Status::{Away, Busy, Offline, Online};
use domain::Command::Settle;

#[test]
fn a_plain_heartbeat_is_one_event_and_takes_no_sequence() {
    let then = given([opened(PHONE, 0)]).when(heartbeat(PHONE, 0), 30).then([beat(PHONE, 30)]);
    let decision = then.by_way_of([Online, Online]).done().0;
    assert_eq!(decision.events[0].sequence, 1);
    assert_eq!(decision.after.sequence, 1);
    assert_eq!(decision.after.changed_at, Some(at(0)));
}

#[test]
fn a_session_kept_by_a_heartbeat_outlives_its_first_deadline() {
    given([opened(PHONE, 0), beat(PHONE, 60)]).when(Settle, 179).then([]);
    given([opened(PHONE, 0), beat(PHONE, 60)]).when(Settle, 180).then([expired(PHONE, 180)]);
}

#[test]
fn a_heartbeat_of_an_idle_person_turns_the_session_idle() {
    given([opened(PHONE, 0)])
        .when(heartbeat(PHONE, IDLE_MS), 30)
        .then([beat_idle(PHONE, 30, IDLE_MS), turned_idle(PHONE, 30)])
        .by_way_of([Online, Online, Away])
        .timed([When::Intake, When::Intake]);
    given([opened(PHONE, 0)]).when(heartbeat(PHONE, IDLE_MS - 1), 30).leaves(Online);
}

#[test]
fn a_heartbeat_of_a_person_who_is_back_turns_the_session_active() {
    given([opened_idle(PHONE, 0)])
        .when(heartbeat(PHONE, 0), 30)
        .then([beat(PHONE, 30), turned_active(PHONE, 30)])
        .by_way_of([Away, Away, Online]);
}

#[test]
fn one_session_turns_and_the_status_stays_with_the_other() {
    given([opened(PHONE, 0), opened(LAPTOP, 0)])
        .when(heartbeat(PHONE, IDLE_MS), 30)
        .then([beat_idle(PHONE, 30, IDLE_MS), turned_idle(PHONE, 30)])
        .leaves(Online);
}

#[test]
fn a_session_that_turns_idle_keeps_its_claimed_status() {
    given([opened(PHONE, 0), claimed("system:t", Busy, 1)])
        .when(heartbeat(PHONE, IDLE_MS), 30)
        .by_way_of([Busy, Busy, Busy]);
}

#[test]
fn a_heartbeat_is_measured_by_the_policy_of_its_moment() {
    let policy = Policy { away_after_ms: 10_000, ..Policy::default() };
    given([opened(PHONE, 0)]).policy(policy).when(heartbeat(PHONE, 10_000), 30).leaves(Away);
}

#[test]
fn a_heartbeat_taken_in_before_the_deadline_wins_however_late_it_gets_here() {
    given([opened(PHONE, 0)])
        .when_late(heartbeat(PHONE, 0), 119, 130)
        .then([beat(PHONE, 119)])
        .done()
        .leaves(Online);
}

#[test]
fn a_heartbeat_taken_in_at_the_deadline_or_after_is_refused_and_revives_nothing() {
    for (taken_at, now) in [(120, 120), (120, 130), (130, 130), (9_000, 9_000)] {
        given([opened(PHONE, 0)])
            .when_late(heartbeat(PHONE, 0), taken_at, now)
            .then([expired(PHONE, 120)])
            .refused(Refusal::SessionClosed)
            .leaves(Offline);
    }
}

#[test]
fn a_heartbeat_loses_once_the_end_is_recorded() {
    given([opened(PHONE, 0), expired(PHONE, 120)])
        .when_late(heartbeat(PHONE, 0), 119, 130)
        .then([])
        .refused(Refusal::SessionClosed);
}

#[test]
fn a_heartbeat_of_a_closed_or_unknown_session_is_refused() {
    given([opened(PHONE, 0), closed(PHONE, 5)])
        .when(heartbeat(PHONE, 0), 10)
        .then([])
        .refused(Refusal::SessionClosed);
    given([opened(LAPTOP, 0)])
        .when(heartbeat(PHONE, 0), 10)
        .then([])
        .refused(Refusal::SessionClosed);
}

#[test]
fn a_late_heartbeat_does_not_save_the_other_session() {
    given([opened(PHONE, 0), opened(LAPTOP, 5)])
        .when_late(heartbeat(PHONE, 0), 119, 130)
        .then([beat(PHONE, 119), expired(LAPTOP, 125)])
        .timed([When::Intake, When::Deadline]);
    given([opened(PHONE, 5), opened(LAPTOP, 0)])
        .when_late(heartbeat(PHONE, 0), 122, 130)
        .then([expired(LAPTOP, 120), beat(PHONE, 122)])
        .timed([When::Deadline, When::Intake]);
}

#[test]
fn a_refused_heartbeat_records_all_that_is_due_by_now() {
    given([opened(PHONE, 0), opened(LAPTOP, 5)])
        .when_late(heartbeat(PHONE, 0), 121, 130)
        .then([expired(PHONE, 120), expired(LAPTOP, 125)])
        .refused(Refusal::SessionClosed);
}

#[test]
fn a_heartbeat_stands_at_its_own_intake_whatever_was_recorded_since() {
    given([opened(PHONE, 0), opened(LAPTOP, 50)])
        .when_late(heartbeat(PHONE, 0), 40, 60)
        .then([beat(PHONE, 40)]);
}

#[test]
fn what_a_heartbeat_turns_never_lies_before_the_previous_transition() {
    given([opened(PHONE, 0), opened(LAPTOP, 50)])
        .when_late(heartbeat(PHONE, IDLE_MS), 40, 60)
        .then([beat_idle(PHONE, 40, IDLE_MS), turned_idle(PHONE, 50)]);
}

#[test]
fn a_heartbeat_overtaken_by_a_later_one_changes_nothing() {
    let then = given([opened(PHONE, 0), beat(PHONE, 60)])
        .when_late(heartbeat(PHONE, IDLE_MS), 50, 61)
        .then([beat_idle(PHONE, 50, IDLE_MS)]);
    let session = &then.leaves(Online).0.after.sessions[0];
    assert_eq!((session.last_seen, session.idle_ms, session.active), (at(60), 0, true));
}

#[test]
fn folding_a_heartbeat_that_came_out_of_order_keeps_the_later_one() {
    let state = fold([opened(PHONE, 0), beat_idle(PHONE, 60, 7), beat_idle(PHONE, 30, 9)]);
    assert_eq!((state.sessions[0].last_seen, state.sessions[0].idle_ms), (at(60), 7));
    let state = fold([opened(PHONE, 0), beat_idle(PHONE, 60, 7), beat_idle(PHONE, 60, 9)]);
    assert_eq!(state.sessions[0].idle_ms, 9, "of two at one instant, the one heard last");
}

#[test]
fn only_a_heartbeat_is_no_transition() {
    assert!(!beat(PHONE, 0).body.is_transition());
    assert!(opened(PHONE, 0).body.is_transition());
    assert!(Body::UserErased {}.is_transition());
}
