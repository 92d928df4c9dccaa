//! Claims: setting, clearing, ending by themselves, and what is refused.

use domain::Command::{self, Settle};
use domain::command::{Expiry, SetClaim};
use domain::decide::CLAIM_DAYS_MAX;
use domain::presence::CLAIMS_MAX;
use domain::{Body, Event, Refusal, Source, Status, When};

use crate::given::{
    ANA, PHONE, at, claim, claim_ended, claim_expiring, claim_saying, claimed, claimed_until,
    claimed_while_active, clear, cleared, event, expired, fold, given, ms, opened, opened_idle,
    src,
};
use Status::{Away, Busy, Dnd, Offline, Online};

const REFUSED: Refusal = Refusal::ClaimExpiryOutOfRange;

#[test]
fn a_claim_is_set_and_taken_back() {
    let then = given([opened(PHONE, 0)])
        .when(claim("manual", Dnd), 10)
        .then([claimed("manual", Dnd, 10)])
        .by_way_of([Online, Dnd])
        .done();
    assert_eq!(then.0.events[0].actor, Some(ANA));
    given([opened(PHONE, 0), claimed("manual", Dnd, 10)])
        .when(clear("manual"), 20)
        .then([cleared("manual", 20)])
        .by_way_of([Dnd, Online])
        .done();
}

#[test]
fn taking_back_what_is_not_claimed_writes_nothing() {
    given([opened(PHONE, 0)]).when(clear("manual"), 10).then([]).done();
    given([opened(PHONE, 0), claimed("admin", Busy, 5)]).when(clear("manual"), 10).then([]);
}

#[test]
fn a_claim_that_changes_no_status_is_recorded_and_leaves_since_alone() {
    let then = given([opened(PHONE, 0), claimed("admin", Busy, 5)])
        .when(claim("manual", Away), 10)
        .then([claimed("manual", Away, 10)])
        .by_way_of([Busy, Busy]);
    assert_eq!(then.0.after.since, at(5));
}

#[test]
fn a_claim_for_activity_is_recorded_as_such() {
    let command = Command::SetClaim(SetClaim {
        source: Source::Manual,
        status: Busy,
        while_active: true,
        expires: None,
        text: None,
    });
    given([opened(PHONE, 0)])
        .when(command.clone(), 10)
        .then([claimed_while_active("manual", Busy, 10)])
        .leaves(Busy);
    given([opened_idle(PHONE, 0)]).when(command, 10).leaves(Away);
}

#[test]
fn offline_cannot_be_claimed() {
    for source in ["admin", "manual", "system:x"] {
        given([opened(PHONE, 0)])
            .when(claim(source, Offline), 10)
            .then([])
            .refused(Refusal::ClaimOffline);
    }
}

#[test]
fn a_claim_with_a_time_to_live_ends_so_long_after_it_was_taken_in() {
    given([opened(PHONE, 0)])
        .when_late(claim_expiring("manual", Dnd, Some(Expiry::AfterMs(60_000))), 10, 12)
        .then([claimed_until("manual", Dnd, 10, 70)])
        .valid_until(Some(at(70)));
}

#[test]
fn a_claim_ends_at_its_instant_by_itself() {
    given([opened(PHONE, 0), claimed_until("manual", Dnd, 10, 70)]).when(Settle, 69).then([]);
    let then = given([opened(PHONE, 0), claimed_until("manual", Dnd, 10, 70)])
        .when(Settle, 100)
        .then([claim_ended("manual", 70)])
        .by_way_of([Dnd, Online])
        .timed([When::Deadline]);
    assert_eq!(then.0.events[0].actor, None);
    assert_eq!(then.0.after.since, at(70));
}

#[test]
fn a_claim_ends_by_itself_while_its_user_is_offline() {
    given([claimed_until("admin", Busy, 0, 70)])
        .when(Settle, 70)
        .then([claim_ended("admin", 70)])
        .by_way_of([Offline, Offline])
        .valid_until(None);
}

#[test]
fn a_claim_set_again_has_the_later_end_or_none() {
    let twice = || [opened(PHONE, 0), claimed_until("manual", Dnd, 10, 70)];
    let then = given(twice()).when(claim("manual", Dnd), 20).then([claimed("manual", Dnd, 20)]);
    assert_eq!(then.0.after.claim(&Source::Manual).unwrap().expires_at, None);
    given(twice())
        .when(claim("manual", Dnd), 71)
        .then([claim_ended("manual", 70), claimed("manual", Dnd, 71)]);
}

#[test]
fn a_claim_that_would_be_over_is_refused() {
    for until in [at(0), at(9), at(10)] {
        given([opened(PHONE, 0)])
            .when(claim_expiring("manual", Dnd, Some(Expiry::At(until))), 10)
            .then([])
            .refused(REFUSED);
    }
    given([opened(PHONE, 0)])
        .when(claim_expiring("manual", Dnd, Some(Expiry::At(at(10) + ms(1)))), 10)
        .leaves(Dnd);
    given([]).when(claim_expiring("manual", Dnd, Some(Expiry::AfterMs(0))), 10).refused(REFUSED);
}

#[test]
fn a_claim_that_ended_while_it_waited_is_refused() {
    given([opened(PHONE, 0)])
        .when_late(claim_expiring("manual", Dnd, Some(Expiry::AfterMs(1_000))), 10, 12)
        .then([])
        .refused(REFUSED);
}

#[test]
fn a_claim_of_more_than_ten_years_is_refused() {
    let longest_ms = CLAIM_DAYS_MAX as u64 * 86_400_000;
    for ms in [longest_ms + 1, i64::MAX as u64, u64::MAX] {
        given([opened(PHONE, 0)])
            .when(claim_expiring("manual", Dnd, Some(Expiry::AfterMs(ms))), 10)
            .then([])
            .refused(REFUSED);
    }
    let latest = at(10) + ms(longest_ms as i64);
    for until in [Expiry::AfterMs(longest_ms), Expiry::At(latest)] {
        given([opened(PHONE, 0)]).when(claim_expiring("manual", Dnd, Some(until)), 10).leaves(Dnd);
    }
    given([opened(PHONE, 0)])
        .when(claim_expiring("manual", Dnd, Some(Expiry::At(latest + ms(1)))), 10)
        .refused(REFUSED);
}

#[test]
fn what_can_never_be_claimed_is_refused_before_its_end_is_looked_at() {
    given([])
        .when(claim_expiring("manual", Offline, Some(Expiry::At(at(0)))), 10)
        .refused(Refusal::ClaimOffline);
}

fn claims(count: usize) -> Vec<Event> {
    (0..count).map(|n| claimed(&format!("system:{n}"), Busy, 0)).collect()
}

#[test]
fn the_sixty_fifth_claim_is_refused_and_an_old_one_may_still_change() {
    given(claims(CLAIMS_MAX - 1)).when(claim("manual", Dnd), 1).done();
    given(claims(CLAIMS_MAX))
        .when(claim("manual", Dnd), 1)
        .then([])
        .refused(Refusal::TooManyClaims);
    given(claims(CLAIMS_MAX))
        .when(claim("system:7", Dnd), 1)
        .then([claimed("system:7", Dnd, 1)])
        .done();
}

#[test]
fn the_text_of_a_claim_is_in_the_state_and_not_in_the_log() {
    let then = given([opened(PHONE, 0)])
        .when(claim_saying("manual", Busy, "in a meeting"), 10)
        .then([claimed("manual", Busy, 10)]);
    let claim = then.0.after.claim(&Source::Manual).unwrap();
    assert_eq!(claim.text.as_deref(), Some("in a meeting"));
    assert_eq!(then.0.claim_text, Some((Source::Manual, "in a meeting".to_owned())));
}

#[test]
fn a_claim_set_again_without_a_text_has_none() {
    let mut before = given([opened(PHONE, 0), claimed("manual", Busy, 5)]);
    before.state.claims[0].text = Some("in a meeting".to_owned());
    let decision = before.when(claim("manual", Busy), 10).0;
    let (_, state) = decision.resolved(at(10));
    assert_eq!(state.claims[0].text, None);
}

#[test]
fn an_erased_user_has_no_texts() {
    let mut state = fold([opened(PHONE, 0), claimed("manual", Busy, 5)]);
    state.claims[0].text = Some("in a meeting".to_owned());
    state.apply(&event(6, Body::UserErased {}));
    assert_eq!(state.claims[0].text, None);
    assert_eq!(state.status, Busy);
}

#[test]
fn claims_outlive_the_sessions() {
    let then = given([opened(PHONE, 0), claimed("system:t", Busy, 1)])
        .when(Settle, 120)
        .then([expired(PHONE, 120)])
        .by_way_of([Busy, Offline]);
    assert!(then.0.after.claim(&src("system:t")).is_some());
}
