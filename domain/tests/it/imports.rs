//! History from elsewhere: at its own times, in its own order, no part of the present.

use domain::command::ImportedChange::{Closed, Expired, Heartbeat, Opened};
use domain::presence::SESSIONS_MAX;
use domain::shown::shown;
use domain::{
    Audience, Body, Command, DeviceKind, Event, Reason, Refusal, SessionId, Status, When,
};

use crate::given::{
    ANA, LAPTOP, PHONE, TABLET, at, beat, claimed, closed, closed_for, event, expired, fold,
    from_elsewhere, given, import, opened,
};
use Status::{Offline, Online};

const WEB: DeviceKind = DeviceKind::Web;

fn gone(session: SessionId, seconds: i64) -> Event {
    from_elsewhere(closed_for(session, seconds, Reason::LostCarrier))
}

/// PHONE from second 10 to 20, elsewhere.
fn history() -> [Event; 2] {
    [from_elsewhere(opened(PHONE, 10)), from_elsewhere(closed(PHONE, 20))]
}

#[test]
fn a_line_is_recorded_at_the_time_its_source_gives() {
    let then = given([])
        .when(import(Opened(WEB), PHONE, 10), 500)
        .then([from_elsewhere(opened(PHONE, 10))])
        .timed([When::Exact])
        .done();
    let recorded = &then.0.events[0];
    assert_eq!((recorded.from, recorded.to), (Offline, Online));
    assert_eq!((recorded.sequence, recorded.actor), (1, Some(ANA)));
}

#[test]
fn every_kind_of_line_has_its_event() {
    let open = || given([from_elsewhere(opened(PHONE, 10))]);
    open().when(import(Heartbeat, PHONE, 15), 500).then([from_elsewhere(beat(PHONE, 15))]);
    open()
        .when(import(Closed(Reason::UserRequest), PHONE, 15), 500)
        .then([from_elsewhere(closed(PHONE, 15))]);
    open()
        .when(import(Expired(Reason::LostCarrier), PHONE, 15), 500)
        .then([from_elsewhere(expired(PHONE, 15))]);
}

#[test]
fn an_imported_heartbeat_takes_no_sequence() {
    let then = given([from_elsewhere(opened(PHONE, 10))]).when(import(Heartbeat, PHONE, 15), 500);
    assert_eq!((then.0.events[0].sequence, then.0.after.sequence), (1, 1));
}

#[test]
fn the_statuses_of_imported_events_are_those_of_the_imported_history_alone() {
    let before = [from_elsewhere(opened(PHONE, 10)), opened(TABLET, 400)];
    let then = given(before).when(import(Opened(WEB), LAPTOP, 15), 500);
    assert_eq!((then.0.events[0].from, then.0.events[0].to), (Online, Online));
    let before = [from_elsewhere(opened(PHONE, 10)), opened(TABLET, 400)];
    let then = given(before).when(import(Closed(Reason::UserRequest), PHONE, 15), 410);
    assert_eq!((then.0.events[0].from, then.0.events[0].to), (Online, Offline));
    assert_eq!(then.0.after.status, Online);
}

#[test]
fn a_line_before_the_last_imported_event_is_out_of_order() {
    given(history())
        .when(import(Opened(WEB), LAPTOP, 19), 500)
        .then([])
        .refused(Refusal::OutOfOrder);
    given(history())
        .when(import(Opened(WEB), LAPTOP, 20), 500)
        .then([from_elsewhere(opened(LAPTOP, 20))]);
}

#[test]
fn a_line_at_or_after_the_first_own_transition_overlaps() {
    for seconds in [30, 31] {
        given([opened(TABLET, 30)])
            .when(import(Opened(WEB), PHONE, seconds), 60)
            .then([])
            .refused(Refusal::OverlapsHistory);
    }
    given([opened(TABLET, 30)])
        .when(import(Opened(WEB), PHONE, 29), 60)
        .then([from_elsewhere(opened(PHONE, 29))]);
}

#[test]
fn the_first_own_transition_may_be_any() {
    given([claimed("admin", Status::Busy, 30)])
        .when(import(Opened(WEB), PHONE, 30), 60)
        .refused(Refusal::OverlapsHistory);
}

#[test]
fn a_line_in_the_future_is_refused() {
    given([]).when(import(Opened(WEB), PHONE, 501), 500).then([]).refused(Refusal::InTheFuture);
    given([]).when(import(Opened(WEB), PHONE, 500), 500).done();
}

#[test]
fn a_line_from_before_1970_is_refused() {
    let first = -at(0).timestamp();
    given([])
        .when(import(Opened(WEB), PHONE, first - 1), 500)
        .then([])
        .refused(Refusal::BeforeEpoch);
    given([]).when(import(Opened(WEB), PHONE, first), 500).done();
}

#[test]
fn a_login_of_a_session_that_is_open_is_refused() {
    given([from_elsewhere(opened(PHONE, 10))])
        .when(import(Opened(WEB), PHONE, 15), 500)
        .then([])
        .refused(Refusal::AlreadyOpen);
}

#[test]
fn a_line_about_a_session_that_is_not_open_is_refused() {
    for what in [Heartbeat, Closed(Reason::UserRequest), Expired(Reason::LostCarrier)] {
        given([]).when(import(what, PHONE, 15), 500).then([]).refused(Refusal::NotOpen);
        given(history()).when(import(what, PHONE, 25), 500).refused(Refusal::NotOpen);
    }
}

#[test]
fn an_own_session_is_not_open_to_an_import() {
    given([opened(PHONE, 30)])
        .when(import(Closed(Reason::UserRequest), PHONE, 20), 60)
        .refused(Refusal::NotOpen);
}

#[test]
fn imported_sessions_have_the_same_limit() {
    let crowd = (0..SESSIONS_MAX).map(|n| from_elsewhere(opened(session(n), 0)));
    given(crowd)
        .when(import(Opened(WEB), PHONE, 10), 500)
        .then([])
        .refused(Refusal::TooManySessions);
}

fn session(n: usize) -> SessionId {
    SessionId::from_u128(1_000 + n as u128)
}

#[test]
fn a_session_left_open_ends_at_its_last_imported_event() {
    let then = given([from_elsewhere(opened(PHONE, 10)), from_elsewhere(beat(PHONE, 18))])
        .when(Command::ImportEnd, 500)
        .then([gone(PHONE, 18)])
        .timed([When::Exact])
        .done();
    assert_eq!((then.0.events[0].from, then.0.events[0].to), (Online, Offline));
}

#[test]
fn sessions_left_open_end_each_at_its_own_last_event_earliest_first() {
    let left = [
        from_elsewhere(opened(PHONE, 10)),
        from_elsewhere(opened(LAPTOP, 12)),
        from_elsewhere(opened(TABLET, 14)),
        from_elsewhere(beat(PHONE, 18)),
        from_elsewhere(closed(TABLET, 30)),
    ];
    let decision = given(left).when(Command::ImportEnd, 500).0;
    let events: Vec<_> = decision.events.iter().map(|recorded| recorded.event.clone()).collect();
    assert_eq!(events, [gone(LAPTOP, 12), gone(PHONE, 18)]);
    let statuses: Vec<_> =
        decision.events.iter().map(|recorded| (recorded.from, recorded.to)).collect();
    assert_eq!(statuses, [(Online, Online), (Online, Offline)]);
    assert_eq!(decision.after.imported.unwrap().until, at(30));
}

#[test]
fn an_import_ends_once() {
    let ended = [from_elsewhere(opened(PHONE, 10)), gone(PHONE, 10)];
    given(ended).when(Command::ImportEnd, 500).then([]).done();
    given([]).when(Command::ImportEnd, 500).then([]).done();
    given([opened(PHONE, 490)]).when(Command::ImportEnd, 500).then([]).done();
}

#[test]
fn an_imported_user_without_own_events_is_offline_and_was_last_seen_by_the_import() {
    for events in [history().to_vec(), vec![from_elsewhere(opened(PHONE, 20))]] {
        let state = fold(events);
        assert!(state.seen());
        let seen = shown(&state, Audience::Others);
        assert_eq!((seen.status, seen.since, seen.last_seen), (Offline, at(20), Some(at(20))));
        assert_eq!((state.sessions.len(), state.own_since, state.changed_at), (0, None, None));
    }
}

#[test]
fn an_imported_session_has_no_lease() {
    given([from_elsewhere(opened(PHONE, 10))])
        .when(Command::Settle, 9_000)
        .then([])
        .valid_until(None);
}

#[test]
fn a_login_after_an_import_is_the_first_own_event() {
    let state = fold(history().into_iter().chain([opened(LAPTOP, 100)]));
    assert_eq!((state.status, state.since, state.sequence), (Online, at(100), 3));
    assert_eq!((state.own_since, state.latest_seen()), (Some(at(100)), Some(at(100))));
}

#[test]
fn a_later_import_leaves_an_own_present_untouched() {
    let own = [opened(TABLET, 400), claimed("manual", Status::Dnd, 410)];
    let before = fold(own.clone());
    let after = fold(own.into_iter().chain(history()));
    assert_eq!(after.sequence, before.sequence + 2);
    assert!(after.imported.is_some());
    let present = domain::Presence { sequence: before.sequence, imported: None, ..after };
    assert_eq!(present, before);
}

#[test]
fn an_import_settles_first_like_any_other_command() {
    let then = given([opened(TABLET, 30)])
        .when(import(Opened(WEB), PHONE, 10), 500)
        .then([expired(TABLET, 150), from_elsewhere(opened(PHONE, 10))])
        .timed([When::Deadline, When::Exact])
        .valid_until(None);
    assert_eq!(then.0.after.status, Offline);
    given([opened(TABLET, 30)])
        .when(import(Opened(WEB), PHONE, 10), 100)
        .valid_until(Some(at(150)));
}

#[test]
fn only_what_is_marked_as_imported_is() {
    assert!(from_elsewhere(beat(PHONE, 0)).body.imported());
    assert!(!beat(PHONE, 0).body.imported());
    assert!(!event(0, Body::UserErased {}).body.imported());
}
