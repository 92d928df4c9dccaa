//! What others may see: nothing gives an invisible user away.

use domain::Command::Settle;
use domain::shown::{shown, transition};
use domain::{Audience, Event, Presence, Shown, Source, Status, Timestamp};

use crate::given::{
    LAPTOP, PHONE, at, back, beat, claim_saying, claimed, closed, fold, given, hidden, hide,
    opened, opened_idle,
};
use Status::{Away, Busy, Dnd, Offline, Online};

fn others(state: &Presence) -> Shown {
    shown(state, Audience::Others)
}

fn offline(since: Timestamp, last_seen: Option<Timestamp>) -> Shown {
    Shown { status: Offline, since, last_seen, text: None, truth: None }
}

#[test]
fn others_see_status_since_last_seen_and_text_of_a_visible_user() {
    let state = given([opened(PHONE, 0)]).when(claim_saying("manual", Busy, "lunch"), 10).0.after;
    let seen = others(&state);
    assert_eq!((seen.status, seen.since, seen.last_seen), (Busy, at(10), Some(at(0))));
    assert_eq!(seen.text.as_deref(), Some("lunch"));
    assert_eq!(seen.truth, None, "sessions, sequence and claims are not for others");
}

#[test]
fn the_text_shown_is_the_deciding_claims() {
    let state = given([opened(PHONE, 0)]).when(claim_saying("manual", Busy, "lunch"), 10).0.after;
    let mut overruled = state.clone();
    overruled.apply(&claimed("admin", Dnd, 11));
    assert_eq!(others(&overruled).text, None);
    let mut gone = state;
    gone.apply(&closed(PHONE, 12));
    assert_eq!(others(&gone).text, None, "no text of somebody who is not there");
}

#[test]
fn the_entitled_see_the_truth_of_an_invisible_user() {
    let state = fold([opened(PHONE, 0), claimed("manual", Dnd, 2), hidden(5), beat(PHONE, 30)]);
    let seen = shown(&state, Audience::Entitled);
    assert_eq!((seen.status, seen.since, seen.last_seen), (Dnd, at(2), Some(at(30))));
    let truth = seen.truth.unwrap();
    assert!(truth.invisible);
    assert_eq!((truth.sessions, truth.sequence), (1, 3));
    assert_eq!(truth.last_activity, Some(at(30)));
    assert_eq!(truth.claims[0].source, Source::Manual);
}

#[test]
fn others_see_somebody_who_went_invisible_as_offline_from_that_moment() {
    let state = fold([opened(PHONE, 0), beat(PHONE, 20), hidden(25)]);
    assert_eq!(others(&state), offline(at(25), Some(at(20))));
}

#[test]
fn nothing_that_an_invisible_user_does_shows() {
    let before = [opened(PHONE, 0), claimed("manual", Busy, 1), hidden(25)];
    let frozen = others(&fold(before.clone()));
    let doings = [
        vec![beat(PHONE, 60)],
        vec![opened(LAPTOP, 40), beat(LAPTOP, 60)],
        vec![closed(PHONE, 40)],
        vec![closed(PHONE, 40), opened(LAPTOP, 50)],
        vec![claimed("admin", Dnd, 50)],
        vec![opened_idle(LAPTOP, 40), closed(PHONE, 41)],
    ];
    for doing in doings {
        let state = fold(before.iter().cloned().chain(doing.clone()));
        assert_eq!(others(&state), frozen, "{doing:?}");
    }
}

#[test]
fn the_time_out_of_an_invisible_user_does_not_show() {
    let then = given([opened(PHONE, 0), hidden(25)]).when(Settle, 500);
    assert_eq!(others(&then.0.after), offline(at(25), Some(at(0))));
}

#[test]
fn somebody_who_goes_invisible_while_offline_shows_no_change_at_all() {
    let before = [opened(PHONE, 0), beat(PHONE, 5), closed(PHONE, 10)];
    let seen = others(&fold(before.clone()));
    let state = fold(before.into_iter().chain([hidden(20)]));
    assert_eq!(others(&state), seen);
    let state = fold([hidden(20)]);
    assert_eq!(others(&state), offline(at(20), None));
}

#[test]
fn after_coming_back_since_is_the_return_for_others_and_the_truth_for_the_entitled() {
    let state = fold([opened(PHONE, 0), hidden(25), beat(PHONE, 30), back(40)]);
    let seen = others(&state);
    assert_eq!((seen.status, seen.since, seen.last_seen), (Online, at(40), Some(at(30))));
    assert_eq!(shown(&state, Audience::Entitled).since, at(0));
}

#[test]
fn what_changed_while_invisible_is_shown_as_of_the_return() {
    let state = fold([opened(PHONE, 0), hidden(25), claimed("manual", Busy, 30), back(40)]);
    assert_eq!((others(&state).status, others(&state).since), (Busy, at(40)));
    assert_eq!(shown(&state, Audience::Entitled).since, at(30));
    let state = fold([opened_idle(PHONE, 0), hidden(25), back(40), opened(LAPTOP, 50)]);
    assert_eq!((others(&state).status, others(&state).since), (Online, at(50)));
}

#[test]
fn coming_back_while_offline_is_no_change_of_status() {
    let state = fold([opened(PHONE, 0), closed(PHONE, 10), hidden(20), back(40)]);
    assert_eq!(others(&state), offline(at(10), Some(at(0))));
}

#[test]
fn going_invisible_twice_freezes_anew() {
    let events: Vec<Event> =
        vec![opened(PHONE, 0), hidden(10), back(20), beat(PHONE, 30), hidden(35), beat(PHONE, 60)];
    assert_eq!(others(&fold(events)), offline(at(35), Some(at(30))));
}

#[test]
fn going_invisible_is_an_event_once() {
    given([opened(PHONE, 0)])
        .when(hide(true), 10)
        .then([hidden(10)])
        .by_way_of([Online, Online])
        .done();
    given([opened(PHONE, 0), hidden(10)]).when(hide(true), 20).then([]).done();
    given([opened(PHONE, 0), hidden(10)]).when(hide(false), 20).then([back(20)]).done();
    given([opened(PHONE, 0)]).when(hide(false), 20).then([]).done();
}

#[test]
fn the_status_that_others_are_shown_is_the_status_of_a_visible_user() {
    assert_eq!(fold([opened(PHONE, 0)]).shown_status(), Online);
    assert_eq!(fold([opened_idle(PHONE, 0)]).shown_status(), Away);
    assert_eq!(fold([opened(PHONE, 0), hidden(1)]).shown_status(), Offline);
}

#[test]
fn a_transition_of_an_invisible_user_is_none_to_others_and_the_truth_to_the_entitled() {
    let others = |statuses, invisible| transition(statuses, invisible, Audience::Others);
    assert_eq!(others([Online, Away], [false, false]), [Online, Away]);
    assert_eq!(others([Online, Away], [true, true]), [Offline, Offline]);
    assert_eq!(others([Online, Online], [false, true]), [Online, Offline]);
    assert_eq!(others([Online, Online], [true, false]), [Offline, Online]);
    let entitled = transition([Online, Away], [true, true], Audience::Entitled);
    assert_eq!(entitled, [Online, Away]);
}
