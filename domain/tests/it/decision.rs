//! What a decision carries: the times that `append` gave, and how long it holds.

use domain::command::Expiry;
use domain::{Command, Decision, Event, Presence, Source, Status, When};

use crate::given::{
    IDLE_MS, LAPTOP, PHONE, TABLET, Then, at, beat, beat_idle, claim, claim_ended, claim_expiring,
    claim_saying, claimed, claimed_until, clear, close, closed, expired, fold, from_elsewhere,
    given, heartbeat, import, ms, open, opened, polled, turned_idle,
};
use Status::{Away, Busy, Dnd, Offline, Online};

fn resolved(then: Then, taken_at: i64) -> (Vec<Event>, Presence) {
    let (events, state) = then.0.resolved(at(taken_at));
    (events.into_iter().map(|recorded| recorded.event).collect(), state)
}

#[test]
fn times_of_intake_become_those_that_append_computed() {
    let (events, state) = resolved(given([]).when(open(PHONE), 10), 9);
    assert_eq!(events, [opened(PHONE, 9)]);
    assert_eq!(state, fold(events));
}

#[test]
fn deadlines_stay_what_they_are() {
    let (events, state) = resolved(given([opened(PHONE, 0)]).when(open(LAPTOP), 200), 203);
    assert_eq!(events, [expired(PHONE, 120), opened(LAPTOP, 203)]);
    assert_eq!(state, fold([opened(PHONE, 0), expired(PHONE, 120), opened(LAPTOP, 203)]));
}

#[test]
fn a_transition_of_intake_never_lies_before_the_users_previous_one() {
    let before = [opened(PHONE, 100)];
    let (events, _) = resolved(given(before).when(close(PHONE), 110), 90);
    assert_eq!(events, [closed(PHONE, 100)]);
    let (events, _) = resolved(given([opened(PHONE, 0)]).when(open(LAPTOP), 200), 110);
    assert_eq!(events, [expired(PHONE, 120), opened(LAPTOP, 120)]);
}

#[test]
fn a_heartbeat_stands_at_its_intake_and_what_it_turns_after_the_previous_transition() {
    let before = [opened(PHONE, 0), opened(LAPTOP, 50)];
    let (events, state) = resolved(given(before).when(heartbeat(PHONE, IDLE_MS), 60), 40);
    assert_eq!(events, [beat_idle(PHONE, 40, IDLE_MS), turned_idle(PHONE, 50)]);
    assert_eq!(state.sessions[0].last_seen, at(40));
}

#[test]
fn what_happened_elsewhere_keeps_its_time() {
    let what = domain::command::ImportedChange::Opened(domain::DeviceKind::Web);
    let (events, _) = resolved(given([]).when(import(what, PHONE, 10), 500), 499);
    assert_eq!(events, [from_elsewhere(opened(PHONE, 10))]);
}

#[test]
fn without_a_difference_in_times_the_resolved_state_is_the_one_decided() {
    let before = [opened(PHONE, 0), polled(LAPTOP, 5), claimed("manual", Dnd, 6)];
    let then = given(before).when(claim_saying("system:t", Busy, "on a call"), 130);
    let after = then.0.after.clone();
    assert_eq!(resolved(then, 130).1, after);
}

#[test]
fn the_text_of_a_claim_survives_its_own_and_later_decisions() {
    let then = given([opened(PHONE, 0)]).when(claim_saying("manual", Busy, "lunch"), 10);
    let (_, state) = resolved(then, 9);
    let text = |state: &Presence| state.claim(&Source::Manual).and_then(|c| c.text.clone());
    assert_eq!(text(&state).as_deref(), Some("lunch"));
    let mut later = given([]);
    later.state = state;
    let (_, state) = resolved(later.when(claim("system:t", Dnd), 20), 19);
    assert_eq!(text(&state).as_deref(), Some("lunch"));
}

#[test]
fn a_decision_of_somebody_else_is_told_by_its_events() {
    let base = fold([polled(PHONE, 0), opened(LAPTOP, 5), claimed_until("admin", Busy, 6, 9)]);
    let elsewhere = from_elsewhere(opened(TABLET, -9));
    let events = vec![
        claim_ended("admin", 9),
        turned_idle(PHONE, 120),
        expired(LAPTOP, 125),
        elsewhere,
        from_elsewhere(beat(TABLET, -7)),
        from_elsewhere(expired(TABLET, -5)),
        turned_idle(LAPTOP, 126),
        opened(LAPTOP, 126),
    ];
    let decision = Decision::of_events(base, events);
    let told: Vec<_> = decision.events.iter().map(|r| (r.when, r.from, r.to)).collect();
    assert_eq!(
        told,
        [
            (When::Deadline, Busy, Online),
            (When::Deadline, Online, Online),
            (When::Deadline, Online, Away),
            (When::Exact, Offline, Online),
            (When::Exact, Online, Online),
            (When::Exact, Online, Offline),
            (When::Intake, Away, Away),
            (When::Intake, Away, Online),
        ]
    );
    assert_eq!(decision.after.sequence, 10);
}

#[test]
fn a_decision_holds_until_the_next_deadline() {
    given([opened(PHONE, 0)]).when(open(LAPTOP), 10).valid_until(Some(at(120)));
    given([]).when(open(LAPTOP), 10).valid_until(Some(at(130)));
    given([]).when(claim("admin", Busy), 10).valid_until(None);
    given([polled(PHONE, 0)]).when(claim("admin", Busy), 10).valid_until(Some(at(120)));
    given([opened(PHONE, 0)]).when(claim("admin", Busy), 130).valid_until(None);
}

#[test]
fn a_decision_that_writes_nothing_holds_no_longer() {
    given([opened(PHONE, 0)]).when(open(PHONE), 10).then([]).valid_until(Some(at(120)));
    given([opened(PHONE, 0)]).when(clear("admin"), 10).then([]).valid_until(Some(at(120)));
}

#[test]
fn what_the_command_itself_ends_may_end_by_itself_before() {
    given([opened(PHONE, 0)]).when(close(PHONE), 10).valid_until(Some(at(120)));
    given([claimed_until("admin", Busy, 0, 60)]).when(clear("admin"), 10).valid_until(Some(at(60)));
    given([claimed_until("admin", Busy, 0, 60)])
        .when(claim("admin", Busy), 10)
        .valid_until(Some(at(60)));
    given([opened(PHONE, 0)])
        .when(Command::Resume { session: PHONE }, 10)
        .valid_until(Some(at(120)));
}

#[test]
fn what_the_command_itself_begins_may_end_before_anything_else() {
    given([opened(PHONE, 0)])
        .when(claim_expiring("manual", Dnd, Some(Expiry::AfterMs(1_500))), 10)
        .valid_until(Some(at(10) + ms(1_500)));
}

#[test]
fn a_heartbeat_does_not_fear_the_deadline_that_it_moves() {
    given([opened(PHONE, 0)])
        .when(heartbeat(PHONE, 0), 100)
        .then([beat(PHONE, 100)])
        .valid_until(Some(at(220)));
    given([opened(PHONE, 0), opened(LAPTOP, 10)])
        .when(heartbeat(PHONE, 0), 100)
        .valid_until(Some(at(130)));
}

#[test]
fn an_outage_moves_the_end_of_a_decision_too() {
    given([opened(PHONE, 0)]).silent(20, 50).when(open(LAPTOP), 60).valid_until(Some(at(150)));
}
