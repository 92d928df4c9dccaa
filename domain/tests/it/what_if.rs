//! History under another policy.

use domain::policy::PolicyPatch;
use domain::what_if::{Fold, Span, WhatIf};
use domain::{Event, Policy, Reason, Silence, Silences, Status};

use crate::given::{
    IDLE_MS, LAPTOP, PHONE, at, beat, beat_idle, claim_ended, claimed, claimed_until, closed,
    closed_for, expired, opened, turned_idle,
};

use Status::{Away, Busy, Offline, Online};

fn lease(lease_s: u32) -> WhatIf {
    let patch = PolicyPatch { lease_ms: Some(lease_s * 1_000), ..PolicyPatch::default() };
    WhatIf { patch, silences: Silences::default() }
}

fn away_after(away_after_s: u32) -> WhatIf {
    let patch = PolicyPatch { away_after_ms: Some(away_after_s * 1_000), ..PolicyPatch::default() };
    WhatIf { patch, silences: Silences::default() }
}

/// From which second on which status.
#[track_caller]
fn becomes<const N: usize>(
    what_if: &WhatIf,
    events: &[Event],
    until: i64,
    expected: [(i64, Status); N],
) {
    let spans = what_if.spans(events, &Policy::default(), at(until));
    let mut ends: Vec<_> = expected[1..].iter().map(|(from, _)| Some(at(*from))).collect();
    ends.push(None);
    let expected: Vec<Span> = expected
        .into_iter()
        .zip(ends)
        .map(|((from, status), to)| Span { from: at(from), to, status })
        .collect();
    assert_eq!(spans, expected);
}

#[test]
fn nobody_who_sends_heartbeats_in_time_notices_a_shorter_lease() {
    let events = [opened(PHONE, 0), beat(PHONE, 30), beat(PHONE, 60)];
    becomes(&lease(65), &events, 100, [(0, Online)]);
    becomes(&lease(65), &events, 200, [(0, Online), (125, Offline)]);
}

#[test]
fn under_a_shorter_lease_a_late_heartbeat_is_a_login() {
    let events = [opened(PHONE, 0), beat(PHONE, 100), closed(PHONE, 110)];
    let spans = [(0, Online), (70, Offline), (100, Online), (110, Offline)];
    becomes(&lease(70), &events, 200, spans);
}

#[test]
fn under_a_longer_lease_an_expired_session_lives_on_to_its_own_end() {
    let events = [opened(PHONE, 0), beat(PHONE, 30), expired(PHONE, 150)];
    becomes(&lease(300), &events, 1_000, [(0, Online), (330, Offline)]);
    becomes(&lease(300), &events, 200, [(0, Online)]);
}

#[test]
fn a_client_that_logged_in_anew_would_not_have_needed_to() {
    let events = [opened(PHONE, 0), expired(PHONE, 120), opened(LAPTOP, 200), closed(LAPTOP, 220)];
    becomes(&lease(1_000), &events, 2_000, [(0, Online), (220, Offline)]);
    // Too late for that: it was over under either.
    becomes(
        &lease(150),
        &events,
        2_000,
        [(0, Online), (150, Offline), (200, Online), (220, Offline)],
    );
}

#[test]
fn an_administrator_who_ended_sessions_would_have_ended_those_too() {
    let mut events = vec![opened(PHONE, 0), opened(LAPTOP, 1), beat(LAPTOP, 100)];
    events.push(expired(PHONE, 120));
    events.push(closed_for(LAPTOP, 130, Reason::AdminReset));
    becomes(&lease(1_000), &events, 2_000, [(0, Online), (130, Offline)]);
}

#[test]
fn idleness_is_judged_by_the_other_threshold() {
    let events = [opened(PHONE, 0), beat_idle(PHONE, 30, IDLE_MS), turned_idle(PHONE, 30)];
    becomes(&away_after(600), &events, 60, [(0, Online)]);
    becomes(&away_after(300), &events, 60, [(0, Online), (30, Away)]);
}

#[test]
fn claims_stay_and_end_when_they_said() {
    let timer = "system:timer:1";
    let events = [
        opened(PHONE, 0),
        claimed_until(timer, Busy, 10, 500),
        expired(PHONE, 120),
        claim_ended(timer, 500),
    ];
    becomes(&lease(1_000), &events, 700, [(0, Online), (10, Busy), (500, Online)]);
    becomes(&lease(120), &events, 700, [(0, Online), (10, Busy), (120, Offline)]);
}

#[test]
fn our_outages_stay_nobodys_time_out() {
    let what_if = WhatIf {
        silences: Silences::new(vec![Silence { from: at(50), to: at(150) }]),
        ..lease(70)
    };
    becomes(&what_if, &[opened(PHONE, 0)], 1_000, [(0, Online), (170, Offline)]);
}

#[test]
fn where_heartbeats_are_gone_history_stays_as_it_was() {
    let what_if = lease(70);
    let mut fold = Fold::default();
    // Kept up for 1,000 s by heartbeats that nobody has any more.
    for event in [opened(PHONE, 0), opened(LAPTOP, 10), closed(LAPTOP, 1_000)] {
        fold.as_it_was(&event);
    }
    fold.begin(&what_if, at(2_000));
    fold.take(&what_if, &beat(PHONE, 2_060), &Policy::default());
    fold.until(&what_if, &Policy::default(), at(3_000));
    let spans: Vec<_> = fold.finish().into_iter().map(|span| (span.from, span.status)).collect();
    assert_eq!(spans, [(at(0), Online), (at(2_130), Offline)]);
}

#[test]
fn a_history_that_a_stranger_began_begins_offline() {
    let events = [claimed("admin", Away, 0), opened(PHONE, 10)];
    becomes(&lease(70), &events, 20, [(0, Offline), (10, Away)]);
}
