//! The one function from state to status: every rule, and every pair of rules that compete.

use domain::rules::{self, Rule};
use domain::{Event, Status};

use crate::given::{LAPTOP, claim_ended, claimed_until, cleared, closed};
use crate::given::{
    PHONE, at, claimed, claimed_while_active, fold, given, opened, opened_idle, src, turned_idle,
};
use Status::{Away, Busy, Dnd, Offline, Online};

#[track_caller]
fn assert_status(events: impl IntoIterator<Item = Event>, status: Status, rule: Rule) {
    let state = fold(events);
    assert_eq!(rules::status(&state), (status, rule));
    assert_eq!(state.status, status, "the fold agrees with the rule");
}

#[test]
fn a_user_never_seen_is_offline() {
    assert_status([], Offline, Rule::NoLiveSession);
    assert!(!given([]).state.seen());
}

#[test]
fn an_active_session_is_online() {
    assert_status([opened(PHONE, 0)], Online, Rule::SessionActive);
}

#[test]
fn only_idle_sessions_are_away() {
    assert_status([opened_idle(PHONE, 0)], Away, Rule::AllSessionsIdle);
    let both = [opened_idle(PHONE, 0), opened_idle(LAPTOP, 1)];
    assert_status(both, Away, Rule::AllSessionsIdle);
}

#[test]
fn one_active_session_among_idle_ones_is_online() {
    assert_status([opened_idle(PHONE, 0), opened(LAPTOP, 1)], Online, Rule::SessionActive);
    assert_status([opened(LAPTOP, 0), opened_idle(PHONE, 1)], Online, Rule::SessionActive);
}

#[test]
fn offline_without_a_live_session_beats_every_claim() {
    for source in ["admin", "manual", "system:timer:1"] {
        for status in [Online, Away, Busy, Dnd] {
            let never = [claimed(source, status, 0)];
            assert_status(never, Offline, Rule::NoLiveSession);
            let over = [opened(PHONE, 0), claimed(source, status, 1), closed(PHONE, 2)];
            assert_status(over, Offline, Rule::NoLiveSession);
        }
    }
}

#[test]
fn a_claim_made_while_offline_counts_from_the_login() {
    let events = [claimed("admin", Busy, 0), opened(PHONE, 1)];
    assert_status(events, Busy, Rule::AdminClaim);
}

#[test]
fn each_source_alone_beats_activity_and_idleness() {
    let rules = [
        ("admin", Rule::AdminClaim),
        ("manual", Rule::ManualClaim),
        ("system:call", Rule::SystemClaim),
    ];
    for (source, rule) in rules {
        for status in [Online, Away, Busy, Dnd] {
            assert_status([opened(PHONE, 0), claimed(source, status, 1)], status, rule);
            assert_status([opened_idle(PHONE, 0), claimed(source, status, 1)], status, rule);
        }
    }
}

#[test]
fn admin_beats_manual_beats_system_whatever_they_claim_and_in_whichever_order() {
    let pairs = [
        ("admin", "manual", Rule::AdminClaim),
        ("admin", "system:call", Rule::AdminClaim),
        ("manual", "system:call", Rule::ManualClaim),
    ];
    for (higher, lower, rule) in pairs {
        for high in [Online, Away, Busy, Dnd] {
            for low in [Online, Away, Busy, Dnd] {
                let first = [opened(PHONE, 0), claimed(higher, high, 1), claimed(lower, low, 2)];
                assert_status(first, high, rule);
                let last = [opened(PHONE, 0), claimed(lower, low, 1), claimed(higher, high, 2)];
                assert_status(last, high, rule);
            }
        }
    }
}

#[test]
fn among_systems_dnd_beats_busy_beats_away_beats_online() {
    let order = [Dnd, Busy, Away, Online];
    for (rank, high) in order.into_iter().enumerate() {
        for low in order.into_iter().skip(rank) {
            for (one, other) in [(high, low), (low, high)] {
                let events =
                    [opened(PHONE, 0), claimed("system:a", one, 1), claimed("system:b", other, 2)];
                assert_status(events, high, Rule::SystemClaim);
            }
        }
    }
}

#[test]
fn a_source_claims_one_thing_at_a_time() {
    let events = [opened(PHONE, 0), claimed("manual", Dnd, 1), claimed("manual", Away, 2)];
    assert_eq!(fold(events.clone()).claims.len(), 1);
    assert_status(events, Away, Rule::ManualClaim);
}

#[test]
fn when_the_highest_claim_goes_the_next_one_counts() {
    let all = [
        opened(PHONE, 0),
        claimed("admin", Away, 1),
        claimed_until("manual", Dnd, 2, 60),
        claimed("system:call", Busy, 3),
    ];
    let mut events = all.to_vec();
    assert_status(events.clone(), Away, Rule::AdminClaim);
    events.push(cleared("admin", 4));
    assert_status(events.clone(), Dnd, Rule::ManualClaim);
    events.push(claim_ended("manual", 60));
    assert_status(events.clone(), Busy, Rule::SystemClaim);
    events.push(cleared("system:call", 61));
    assert_status(events, Online, Rule::SessionActive);
}

#[test]
fn a_manual_claim_made_for_activity_yields_once_all_sessions_are_idle() {
    for status in [Online, Away, Busy, Dnd] {
        let claim = claimed_while_active("manual", status, 1);
        assert_status([opened(PHONE, 0), claim.clone()], status, Rule::ManualClaim);
        let idle = [opened(PHONE, 0), claim.clone(), turned_idle(PHONE, 2)];
        assert_status(idle, Away, Rule::AllSessionsIdle);
        let one_active = [opened(PHONE, 0), opened(LAPTOP, 0), claim, turned_idle(PHONE, 2)];
        assert_status(one_active, status, Rule::ManualClaim);
    }
}

#[test]
fn a_manual_claim_that_yields_makes_room_for_a_system_claim() {
    let events = [
        opened_idle(PHONE, 0),
        claimed_while_active("manual", Online, 1),
        claimed("system:t", Busy, 2),
    ];
    assert_status(events, Busy, Rule::SystemClaim);
}

#[test]
fn a_pinned_claim_holds_while_idle() {
    assert_status([opened_idle(PHONE, 0), claimed("manual", Online, 1)], Online, Rule::ManualClaim);
}

#[test]
fn the_deciding_claim_is_the_one_whose_status_is_shown() {
    let state = fold([opened(PHONE, 0), claimed("system:b", Busy, 1), claimed("system:d", Dnd, 2)]);
    assert_eq!(rules::deciding(&state).unwrap().source, src("system:d"));
    assert_eq!(rules::deciding(&fold([claimed("admin", Dnd, 0)])), None);
    assert_eq!(rules::deciding(&fold([opened(PHONE, 0)])), None);
}

#[test]
fn since_is_when_the_status_began_and_not_when_something_else_happened() {
    let state = fold([opened(PHONE, 0), opened(LAPTOP, 5), claimed("system:t", Online, 9)]);
    assert_eq!((state.status, state.since), (Online, at(0)));
    let state = fold([opened(PHONE, 0), claimed("system:t", Busy, 9), closed(PHONE, 20)]);
    assert_eq!((state.status, state.since), (Offline, at(20)));
}

#[test]
fn since_of_a_user_first_seen_by_a_claim_is_that_claim() {
    let state = fold([claimed("admin", Busy, 9)]);
    assert_eq!((state.status, state.since, state.shown_since), (Offline, at(9), at(9)));
}
