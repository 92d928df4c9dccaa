//! Guards: check, record and claim in one decision.

use domain::command::{Expect, Guard, GuardClaim};
use domain::event::GuardRefusal::{self, ClaimConflict, SequenceChanged, StatusRefused};
use domain::presence::CLAIMS_MAX;
use domain::{Body, Command, Event, Refusal, Status};

use crate::given::{
    ANA, PHONE, at, claim_ended, claimed, claimed_until, cleared, event, expired, given, guard,
    guard_claim, hidden, opened, src,
};
use Status::{Busy, Offline, Online};

const TIMER: &str = "system:timer:9";

fn allowed(require: &[Status], seconds: i64) -> Event {
    let (action, require) = ("timer.start".to_owned(), require.to_vec());
    event(seconds, Body::ActionAllowed { action, require, beneath: None })
}

fn refused(require: &[Status], code: GuardRefusal, seconds: i64) -> Event {
    let (action, require) = ("timer.start".to_owned(), require.to_vec());
    event(seconds, Body::ActionRefused { action, require, code, beneath: None })
}

fn expecting(expect: Expect, status: Option<Status>) -> Guard {
    let claim = Some(GuardClaim { source: src(TIMER), status, expect: Some(expect) });
    Guard { claim, ..guard(&[Online, Busy]) }
}

#[test]
fn a_status_that_is_required_allows_and_is_recorded() {
    let then = given([opened(PHONE, 0)])
        .when(Command::Guard(guard(&[Busy, Online])), 10)
        .then([allowed(&[Busy, Online], 10)])
        .guarded(Ok(()), Online);
    assert_eq!(then.0.events[0].actor, Some(ANA));
    assert_eq!(then.0.after.sequence, 2);
}

#[test]
fn a_status_that_is_not_required_refuses_and_is_recorded() {
    given([opened(PHONE, 0)])
        .when(Command::Guard(guard(&[Busy])), 10)
        .then([refused(&[Busy], StatusRefused, 10)])
        .guarded(Err(StatusRefused), Online);
    given([opened(PHONE, 0)])
        .when(Command::Guard(guard(&[])), 10)
        .guarded(Err(StatusRefused), Online);
}

#[test]
fn a_guard_sees_the_status_of_now_and_not_of_the_last_event() {
    given([opened(PHONE, 0)])
        .when(Command::Guard(guard(&[Online])), 120)
        .then([expired(PHONE, 120), refused(&[Online], StatusRefused, 120)])
        .guarded(Err(StatusRefused), Offline);
    given([opened(PHONE, 0), claimed_until("manual", Busy, 1, 60)])
        .when(Command::Guard(guard(&[Online])), 60)
        .then([claim_ended("manual", 60), allowed(&[Online], 60)])
        .guarded(Ok(()), Online);
}

#[test]
fn a_guard_sees_the_truth_of_an_invisible_user() {
    given([opened(PHONE, 0), hidden(5)])
        .when(Command::Guard(guard(&[Online])), 10)
        .guarded(Ok(()), Online);
}

#[test]
fn an_allowed_guard_sets_its_claim() {
    let asked = Guard { claim: Some(guard_claim(TIMER, Some(Busy))), ..guard(&[Online]) };
    given([opened(PHONE, 0)])
        .when(Command::Guard(asked), 10)
        .then([allowed(&[Online], 10), claimed(TIMER, Busy, 10)])
        .by_way_of([Online, Online, Busy])
        .guarded(Ok(()), Online);
}

#[test]
fn an_allowed_guard_clears_its_claim() {
    let asked = || Guard { claim: Some(guard_claim(TIMER, None)), ..guard(&[Online, Busy]) };
    given([opened(PHONE, 0), claimed(TIMER, Busy, 5)])
        .when(Command::Guard(asked()), 10)
        .then([allowed(&[Online, Busy], 10), cleared(TIMER, 10)])
        .by_way_of([Busy, Busy, Online])
        .guarded(Ok(()), Busy);
    given([opened(PHONE, 0)])
        .when(Command::Guard(asked()), 10)
        .then([allowed(&[Online, Busy], 10)]);
}

#[test]
fn a_refused_guard_leaves_the_claims_alone() {
    let asked = Guard { claim: Some(guard_claim(TIMER, Some(Busy))), ..guard(&[Offline]) };
    given([opened(PHONE, 0)])
        .when(Command::Guard(asked), 10)
        .then([refused(&[Offline], StatusRefused, 10)])
        .leaves(Online);
}

#[test]
fn a_claim_expected_to_be_absent_refuses_if_it_is_there() {
    let asked = || Command::Guard(expecting(Expect::Absent, Some(Busy)));
    given([opened(PHONE, 0)]).when(asked(), 10).guarded(Ok(()), Online);
    given([opened(PHONE, 0), claimed(TIMER, Busy, 5)])
        .when(asked(), 10)
        .then([refused(&[Online, Busy], ClaimConflict, 10)])
        .guarded(Err(ClaimConflict), Busy);
}

#[test]
fn a_claim_expected_to_be_present_refuses_if_it_is_not() {
    let asked = || Command::Guard(expecting(Expect::Present, None));
    given([opened(PHONE, 0), claimed(TIMER, Busy, 5)]).when(asked(), 10).guarded(Ok(()), Busy);
    given([opened(PHONE, 0), claimed("system:timer:8", Busy, 5)])
        .when(asked(), 10)
        .guarded(Err(ClaimConflict), Busy);
}

#[test]
fn a_guard_that_overlooks_a_timer_goes_by_what_is_beneath_it_and_says_so() {
    let stop = |require: &[Status]| {
        let claim = Some(guard_claim(TIMER, None));
        Command::Guard(Guard { claim, overlook: Some("system:timer:"), ..guard(require) })
    };
    let running = || given([opened(PHONE, 0), claimed(TIMER, Busy, 5)]);
    let judged = |require: &[Status], beneath| {
        let (action, require) = ("timer.start".to_owned(), require.to_vec());
        event(10, Body::ActionAllowed { action, require, beneath })
    };
    running()
        .when(stop(&[Online]), 10)
        .then([judged(&[Online], Some(Online)), cleared(TIMER, 10)])
        .guarded(Ok(()), Online);
    running()
        .when(stop(&[Busy]), 10)
        .then([judged(&[Busy], None), cleared(TIMER, 10)])
        .guarded(Ok(()), Busy);
    running().when(stop(&[Offline]), 10).guarded(Err(StatusRefused), Online);
    // What is no timer counts as ever, and so does having left.
    given([opened(PHONE, 0), claimed(TIMER, Busy, 5), claimed("manual", Busy, 6)])
        .when(stop(&[Online]), 10)
        .then([refused(&[Online], StatusRefused, 10)])
        .guarded(Err(StatusRefused), Busy);
    given([opened(PHONE, 0), claimed(TIMER, Busy, 5)])
        .when(stop(&[Online]), 120)
        .guarded(Err(StatusRefused), Offline);
}

#[test]
fn a_claim_that_ended_by_itself_is_absent() {
    given([opened(PHONE, 0), claimed_until(TIMER, Busy, 5, 60)])
        .when(Command::Guard(expecting(Expect::Absent, Some(Busy))), 60)
        .then([claim_ended(TIMER, 60), allowed(&[Online, Busy], 60), claimed(TIMER, Busy, 60)])
        .guarded(Ok(()), Online);
}

#[test]
fn a_sequence_that_moved_on_refuses() {
    let asked = |sequence| Guard { if_sequence: Some(sequence), ..guard(&[Online]) };
    given([opened(PHONE, 0)]).when(Command::Guard(asked(1)), 10).guarded(Ok(()), Online);
    for sequence in [0, 2] {
        given([opened(PHONE, 0)])
            .when(Command::Guard(asked(sequence)), 10)
            .then([refused(&[Online], SequenceChanged, 10)])
            .guarded(Err(SequenceChanged), Online);
    }
}

#[test]
fn a_time_out_that_is_settled_first_moves_the_sequence_on() {
    let asked = Guard { if_sequence: Some(1), ..guard(&[Offline]) };
    given([opened(PHONE, 0)])
        .when(Command::Guard(asked), 120)
        .guarded(Err(SequenceChanged), Offline);
}

#[test]
fn the_status_speaks_before_the_claim_and_the_claim_before_the_sequence() {
    let wrong = Guard { if_sequence: Some(99), ..expecting(Expect::Present, None) };
    let status_too = Guard { require: vec![Busy], ..wrong.clone() };
    given([opened(PHONE, 0)])
        .when(Command::Guard(status_too), 10)
        .guarded(Err(StatusRefused), Online);
    given([opened(PHONE, 0)]).when(Command::Guard(wrong), 10).guarded(Err(ClaimConflict), Online);
}

#[test]
fn a_guard_that_would_claim_the_impossible_is_refused_before_anything_is_recorded() {
    let asked = Guard { claim: Some(guard_claim(TIMER, Some(Offline))), ..guard(&[Busy]) };
    given([opened(PHONE, 0)])
        .when(Command::Guard(asked), 10)
        .then([])
        .refused(Refusal::ClaimOffline);
    let full = (0..CLAIMS_MAX).map(|n| claimed(&format!("system:{n}"), Online, 0));
    let asked = Guard { claim: Some(guard_claim(TIMER, Some(Busy))), ..guard(&[Offline]) };
    given(full.clone()).when(Command::Guard(asked), 10).then([]).refused(Refusal::TooManyClaims);
    let again = Guard { claim: Some(guard_claim("system:3", Some(Busy))), ..guard(&[Offline]) };
    given(full).when(Command::Guard(again), 10).guarded(Ok(()), Offline);
}

#[test]
fn a_guard_decision_holds_until_time_would_end_what_it_stands_on() {
    let asked = Guard { claim: Some(guard_claim(TIMER, None)), ..guard(&[Busy]) };
    given([opened(PHONE, 0), claimed_until(TIMER, Busy, 5, 60)])
        .when(Command::Guard(asked), 59)
        .guarded(Ok(()), Busy)
        .valid_until(Some(at(60)));
}
