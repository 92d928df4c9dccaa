//! Settle first: what time did by itself is recorded before anything else, each at its deadline.

use domain::Command::Settle;
use domain::lapse::{next_deadline, next_due, settled};
use domain::{Refusal, Silences, Status, When};

use crate::given::{
    LAPTOP, PHONE, TABLET, at, beat, claim, claim_ended, claimed, claimed_until, close, closed,
    expired, expired_idle, fold, given, hidden, hide, ms, open, opened, opened_idle, polled,
    turned_idle,
};
use Status::{Away, Busy, Dnd, Offline, Online};

#[test]
fn nothing_is_due_before_its_time() {
    given([]).when(Settle, 0).then([]).done().valid_until(None);
    given([opened(PHONE, 0)]).when(Settle, 119).then([]).done().valid_until(Some(at(120)));
    let state = fold([opened(PHONE, 0)]);
    let just_before = at(120) - ms(1);
    assert_eq!(next_due(&state, &Silences::default(), just_before), None);
    assert_eq!(settled(&state, &Silences::default(), just_before), None);
}

#[test]
fn a_lease_is_recorded_as_over_at_its_deadline_however_late_the_sweep() {
    for now in [120, 121, 86_400] {
        let then = given([opened(PHONE, 0)]).when(Settle, now).then([expired(PHONE, 120)]);
        let decision = then.timed([When::Deadline]).by_way_of([Online, Offline]).0;
        assert_eq!(decision.events[0].actor, None, "nobody does what time does");
        assert_eq!(decision.after.since, at(120));
    }
}

#[test]
fn sweeping_twice_changes_nothing() {
    given([opened(PHONE, 0), expired(PHONE, 120)]).when(Settle, 500).then([]).done();
}

#[test]
fn a_late_login_does_not_hide_an_earlier_time_out() {
    given([opened(PHONE, 0)])
        .when(open(LAPTOP), 500)
        .then([expired(PHONE, 120), opened(LAPTOP, 500)])
        .by_way_of([Online, Offline, Online])
        .timed([When::Deadline, When::Intake]);
}

#[test]
fn a_login_taken_in_before_the_time_out_it_waited_for_comes_after_it() {
    given([opened(PHONE, 0)])
        .when_late(open(LAPTOP), 110, 130)
        .then([expired(PHONE, 120), opened(LAPTOP, 120)]);
}

#[test]
fn a_login_under_the_name_of_a_session_that_timed_out_is_a_new_one_to_the_rules() {
    given([opened(PHONE, 0)])
        .when(open(PHONE), 130)
        .then([expired(PHONE, 120), opened(PHONE, 130)]);
}

#[test]
fn a_refused_command_records_what_time_did_all_the_same() {
    given([opened(PHONE, 0)])
        .when(claim("admin", Offline), 130)
        .then([expired(PHONE, 120)])
        .refused(Refusal::ClaimOffline);
}

#[test]
fn every_command_settles_first() {
    for command in [close(LAPTOP), hide(false), open(TABLET), claim("manual", Busy)] {
        let decision = given([opened(PHONE, 0), opened(TABLET, 100)]).when(command, 130).0;
        assert_eq!(decision.events[0].event, expired(PHONE, 120));
    }
}

#[test]
fn several_lapses_stand_in_the_order_of_their_deadlines() {
    given([
        opened(PHONE, 30),
        opened(LAPTOP, 0),
        claimed_until("manual", Dnd, 31, 140),
        claimed_until("system:call", Busy, 32, 60),
        beat(PHONE, 35),
    ])
    .when(Settle, 200)
    .then([
        claim_ended("system:call", 60),
        expired(LAPTOP, 120),
        claim_ended("manual", 140),
        expired(PHONE, 155),
    ])
    .by_way_of([Dnd, Dnd, Dnd, Online, Offline]);
}

#[test]
fn at_one_instant_claims_end_first_then_activity_then_leases() {
    given([opened(LAPTOP, 0), polled(PHONE, 0), claimed_until("admin", Busy, 1, 120)])
        .when(Settle, 120)
        .then([claim_ended("admin", 120), turned_idle(PHONE, 120), expired(LAPTOP, 120)])
        .by_way_of([Busy, Online, Online, Away]);
}

#[test]
fn leases_that_end_together_end_in_the_order_of_their_logins() {
    given([opened(TABLET, 0), opened(PHONE, 0), opened(LAPTOP, 0)]).when(Settle, 120).then([
        expired(TABLET, 120),
        expired(PHONE, 120),
        expired(LAPTOP, 120),
    ]);
}

#[test]
fn an_outage_of_ours_is_nobodys_time_out() {
    given([opened(PHONE, 0)]).silent(60, 600).when(Settle, 659).then([]);
    given([opened(PHONE, 0)]).silent(60, 600).when(Settle, 660).then([expired(PHONE, 660)]);
}

#[test]
fn several_outages_add_up() {
    given([opened(PHONE, 0)])
        .silent(60, 70)
        .silent(125, 145)
        .silent(150, 999)
        .when(Settle, 500)
        .then([expired(PHONE, 150)]);
}

#[test]
fn an_outage_prolongs_activity_but_not_claims() {
    given([polled(PHONE, 0), claimed_until("manual", Busy, 1, 100)])
        .silent(60, 160)
        .when(Settle, 400)
        .then([claim_ended("manual", 100), turned_idle(PHONE, 220), expired_idle(PHONE, 400)]);
}

#[test]
fn an_outage_before_the_last_sign_of_life_counts_for_nothing() {
    given([opened(PHONE, 0), beat(PHONE, 100)])
        .silent(50, 90)
        .when(Settle, 220)
        .then([expired(PHONE, 220)]);
}

#[test]
fn a_reader_sees_what_a_sweep_will_record() {
    let state = fold([opened(PHONE, 0), polled(LAPTOP, 10), claimed("system:t", Busy, 11)]);
    for now in [0, 119, 120, 129, 130, 310, 9_000] {
        let read = settled(&state, &Silences::default(), at(now)).unwrap_or_else(|| state.clone());
        let swept = given([opened(PHONE, 0), polled(LAPTOP, 10), claimed("system:t", Busy, 11)])
            .when(Settle, now);
        assert_eq!(read, swept.0.after, "at {now}");
    }
}

#[test]
fn the_next_deadline_is_the_earliest_of_leases_activity_and_claims() {
    let none = Silences::default();
    assert_eq!(next_deadline(&fold([]), &none), None);
    assert_eq!(next_deadline(&fold([claimed("admin", Busy, 0)]), &none), None);
    assert_eq!(next_deadline(&fold([opened(PHONE, 0)]), &none), Some(at(120)));
    let state = fold([polled(PHONE, 0), opened(LAPTOP, 1)]);
    assert_eq!(next_deadline(&state, &none), Some(at(120)));
    let state = fold([polled(PHONE, 0), turned_idle(PHONE, 120)]);
    assert_eq!(next_deadline(&state, &none), Some(at(300)));
    let state = fold([opened(PHONE, 0), claimed_until("manual", Busy, 0, 7)]);
    assert_eq!(next_deadline(&state, &none), Some(at(7)));
}

#[test]
fn an_invisible_user_times_out_like_any_other() {
    let then = given([opened(PHONE, 0), hidden(5)]).when(Settle, 120).then([expired(PHONE, 120)]);
    assert_eq!(then.by_way_of([Online, Offline]).0.after.shown_since, at(5));
}

#[test]
fn an_idle_session_times_out_from_away() {
    given([opened_idle(PHONE, 0)]).when(Settle, 120).by_way_of([Away, Offline]);
}

#[test]
fn closing_one_session_leaves_the_others_deadline() {
    given([opened(PHONE, 0), opened(LAPTOP, 50)])
        .when(close(PHONE), 60)
        .then([closed(PHONE, 60)])
        .valid_until(Some(at(120)));
}
