//! Logins and logouts: repeatable, limited, several devices.

use domain::command::Open;
use domain::presence::SESSIONS_MAX;
use domain::{
    Body, Command, DeviceKind, Event, Outcome, Policy, Reason, Refusal, SessionId, Status,
};

use crate::given::{
    ANA, IDLE_MS, LAPTOP, PHONE, TABLET, at, beat, claimed, close, closed, closed_for, expired,
    fold, given, open, opened, opened_idle, polled, resumed,
};
use Status::{Away, Busy, Offline, Online};

#[test]
fn a_first_login_makes_a_user_online() {
    let then = given([]).when(open(PHONE), 0).then([opened(PHONE, 0)]);
    let decision = then.by_way_of([Offline, Online]).0;
    assert_eq!(decision.outcome, Outcome::Opened { existed: false });
    assert_eq!(decision.events[0].sequence, 1);
    assert_eq!(decision.events[0].actor, Some(ANA));
}

#[test]
fn a_login_after_long_idleness_is_away() {
    let login = |idle_ms| {
        Command::Open(Open {
            session: PHONE,
            kind: DeviceKind::Web,
            idle_ms,
            interaction_driven: false,
        })
    };
    given([]).when(login(IDLE_MS), 0).then([opened_idle(PHONE, 0)]).leaves(Away);
    given([]).when(login(IDLE_MS - 1), 0).leaves(Online);
}

#[test]
fn the_same_session_again_writes_no_second_event() {
    let then = given([opened(PHONE, 0)]).when(open(PHONE), 60).then([]);
    assert_eq!(then.0.outcome, Outcome::Opened { existed: true });
}

#[test]
fn a_login_takes_lease_and_threshold_from_the_policy_of_its_moment() {
    let policy = Policy { lease_ms: 70_000, ..Policy::default() };
    let then = given([opened(PHONE, 0)]).policy(policy).when(open(LAPTOP), 1);
    let leases: Vec<_> = then.0.after.sessions.iter().map(|session| session.lease_ms).collect();
    assert_eq!(leases, [120_000, 70_000]);
}

fn crowd(count: usize) -> Vec<Event> {
    (0..count).map(|n| opened(SessionId::from_u128(1_000 + n as u128), 0)).collect()
}

#[test]
fn the_sixty_fifth_live_session_is_refused() {
    given(crowd(SESSIONS_MAX - 1)).when(open(PHONE), 1).then([opened(PHONE, 1)]);
    given(crowd(SESSIONS_MAX)).when(open(PHONE), 1).then([]).refused(Refusal::TooManySessions);
}

#[test]
fn at_the_limit_an_open_session_still_answers_again() {
    let then = given(crowd(SESSIONS_MAX)).when(open(SessionId::from_u128(1_000)), 1).then([]);
    assert_eq!(then.0.outcome, Outcome::Opened { existed: true });
}

#[test]
fn sessions_that_time_out_make_room_for_a_login() {
    let then = given(crowd(SESSIONS_MAX)).when(open(PHONE), 120);
    assert_eq!(then.0.events.len(), SESSIONS_MAX + 1);
    assert_eq!(then.0.after.sessions.len(), 1);
}

#[test]
fn a_logout_makes_a_user_offline() {
    given([opened(PHONE, 0)])
        .when(close(PHONE), 30)
        .then([closed(PHONE, 30)])
        .by_way_of([Online, Offline])
        .ended(1);
}

#[test]
fn a_second_logout_writes_no_second_event() {
    given([opened(PHONE, 0), closed(PHONE, 30)]).when(close(PHONE), 31).then([]).ended(0);
    given([]).when(close(PHONE), 31).then([]).ended(0);
}

#[test]
fn a_logout_after_the_time_out_is_done_and_the_time_out_stands() {
    given([opened(PHONE, 0)]).when(close(PHONE), 125).then([expired(PHONE, 120)]).ended(0);
}

#[test]
fn the_last_of_two_devices_turns_off_the_light() {
    let two = [opened(PHONE, 0), opened(LAPTOP, 1)];
    let then = given(two).when(close(PHONE), 30).then([closed(PHONE, 30)]);
    let then = then.by_way_of([Online, Online]);
    assert_eq!(then.0.after.since, at(0));
    let rest = [opened(PHONE, 0), opened(LAPTOP, 1), closed(PHONE, 30)];
    given(rest).when(close(LAPTOP), 40).then([closed(LAPTOP, 40)]).leaves(Offline);
}

#[test]
fn the_active_device_leaves_and_the_idle_one_stays_away() {
    given([opened(PHONE, 0), opened_idle(LAPTOP, 1)])
        .when(close(PHONE), 30)
        .then([closed(PHONE, 30)])
        .by_way_of([Online, Away]);
}

#[test]
fn a_session_may_come_back_under_a_new_name_after_logout() {
    let then = given([opened(PHONE, 0), closed(PHONE, 30)]).when(open(LAPTOP), 40);
    assert_eq!(then.then([opened(LAPTOP, 40)]).0.after.sequence, 3);
}

#[test]
fn disconnecting_all_ends_every_session_once() {
    let reason = Reason::AdminReset;
    given([opened(PHONE, 0), opened(LAPTOP, 1), claimed("admin", Busy, 2)])
        .when(Command::CloseAll { reason }, 30)
        .then([closed_for(PHONE, 30, reason), closed_for(LAPTOP, 30, reason)])
        .by_way_of([Busy, Busy, Offline])
        .ended(2);
    given([]).when(Command::CloseAll { reason }, 30).then([]).ended(0);
}

#[test]
fn disconnecting_all_does_not_rename_a_time_out() {
    let reason = Reason::AdminReset;
    given([opened(PHONE, 0), opened(LAPTOP, 60)])
        .when(Command::CloseAll { reason }, 130)
        .then([expired(PHONE, 120), closed_for(LAPTOP, 130, reason)])
        .ended(1);
}

#[test]
fn a_dropped_connection_that_comes_back_keeps_its_session() {
    let resume = || Command::Resume { session: PHONE };
    let then = given([opened(PHONE, 0)]).when(resume(), 100).then([resumed(PHONE, 100)]).done();
    assert_eq!(then.0.after.sessions[0].last_seen, at(100));
    given([opened(PHONE, 0)])
        .when(resume(), 120)
        .then([expired(PHONE, 120)])
        .refused(Refusal::SessionClosed);
    given([opened(LAPTOP, 0)]).when(resume(), 1).then([]).refused(Refusal::SessionClosed);
}

#[test]
fn last_seen_is_the_latest_sign_of_life_of_any_session_even_of_one_that_is_over() {
    let state = fold([opened(PHONE, 0), opened(LAPTOP, 10), beat(PHONE, 50), closed(PHONE, 55)]);
    assert_eq!(state.latest_seen(), Some(at(50)));
    assert_eq!(state.latest_activity(), Some(at(50)));
    assert_eq!(fold([]).latest_seen(), None);
}

#[test]
fn last_activity_is_the_latest_seen_less_the_idleness() {
    let state = fold([opened(PHONE, 0), opened_idle(LAPTOP, 200)]);
    assert_eq!(state.latest_seen(), Some(at(200)));
    assert_eq!(state.latest_activity(), Some(at(0)));
}

#[test]
fn any_event_applies_to_any_state_so_that_a_log_can_always_be_read() {
    let state = fold([closed(PHONE, 0), beat(LAPTOP, 1), expired(TABLET, 2), resumed(PHONE, 3)]);
    assert_eq!((state.status, state.sequence), (Offline, 3));
    let state = fold([opened(PHONE, 0), polled(PHONE, 5)]);
    assert_eq!((state.sessions.len(), state.sessions[0].opened_at), (1, at(5)));
    let state = fold([opened(PHONE, 0), Event { at: at(1), body: Body::UserErased {} }]);
    assert_eq!((state.status, state.sequence), (Online, 2));
}

#[test]
fn a_session_is_closed_as_silent_only_where_nothing_was_heard_since() {
    let lost = |seconds| Command::CloseSilent {
        session: PHONE,
        last_seen: at(seconds),
        reason: Reason::LostCarrier,
    };
    let closed = closed_for(PHONE, 50, Reason::LostCarrier);
    given([opened(PHONE, 0), beat(PHONE, 30)]).when(lost(30), 50).then([closed]).ended(1);
    given([opened(PHONE, 0), beat(PHONE, 31)]).when(lost(30), 50).then([]).ended(0);
    given([opened(PHONE, 0), resumed(PHONE, 31)]).when(lost(30), 50).then([]).ended(0);
    given([opened(LAPTOP, 0)]).when(lost(30), 50).then([]).ended(0);
}
