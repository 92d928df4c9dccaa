//! The adapters, by cqrs-es' own test framework: the rules as any cqrs-es tool sees them.

use cqrs_es::test::TestFramework;
use cqrs_es::{Aggregate, DomainEvent};
use domain::aggregate::{EVENT_VERSION, PolicyAggregate, PolicyCommand, PolicyEvent, Services};
use domain::policy::{PolicyPatch, PolicyRefusal};
use domain::{Policy, Presence, Refusal, Silences, Status};

use crate::given::{
    ANA, LAPTOP, PHONE, at, beat, claim, claimed, close, closed, expired, heartbeat, open, opened,
};

fn presence(now: i64) -> TestFramework<Presence> {
    TestFramework::with(Services {
        now: at(now),
        policy: Policy::default(),
        silences: Silences::default(),
        actor: Some(ANA),
    })
}

#[test]
fn a_login_through_the_framework() {
    presence(0)
        .given_no_previous_events()
        .when(open(PHONE))
        .then_expect_events(vec![opened(PHONE, 0)]);
}

#[test]
fn a_heartbeat_and_a_logout_through_the_framework() {
    presence(30)
        .given(vec![opened(PHONE, 0)])
        .when(heartbeat(PHONE, 0))
        .then_expect_events(vec![beat(PHONE, 30)]);
    presence(140)
        .given(vec![opened(PHONE, 0)])
        .and(vec![beat(PHONE, 30)])
        .when(close(PHONE))
        .then_expect_events(vec![closed(PHONE, 140)]);
}

#[test]
fn a_late_login_settles_first_through_the_framework() {
    presence(500)
        .given(vec![opened(PHONE, 0), claimed("manual", Status::Busy, 1)])
        .when(open(LAPTOP))
        .then_expect_events(vec![expired(PHONE, 120), opened(LAPTOP, 500)]);
}

#[test]
fn a_refusal_is_an_error_of_the_framework() {
    presence(1)
        .given(vec![opened(PHONE, 0)])
        .when(claim("admin", Status::Offline))
        .then_expect_error(Refusal::ClaimOffline);
    presence(1)
        .given_no_previous_events()
        .when(heartbeat(PHONE, 0))
        .then_expect_error_message("the session is over; log in again");
}

#[test]
fn an_event_is_stored_under_its_own_name_and_version() {
    assert_eq!(opened(PHONE, 0).event_type(), "session_opened");
    assert_eq!(opened(PHONE, 0).event_version(), EVENT_VERSION);
    assert_eq!((Presence::TYPE, PolicyAggregate::TYPE), ("presence", "policy"));
}

fn policy() -> TestFramework<PolicyAggregate> {
    TestFramework::with(())
}

fn changed(policy: Policy) -> PolicyEvent {
    PolicyEvent::Changed { policy, actor: Some(ANA) }
}

/// A change of everything.
fn change(policy: &Policy) -> PolicyCommand {
    let patch = PolicyPatch {
        heartbeat_ms: Some(policy.heartbeat_ms),
        lease_ms: Some(policy.lease_ms),
        away_after_ms: Some(policy.away_after_ms),
        grace_ms: Some(policy.grace_ms),
        interaction_away_after_ms: Some(policy.interaction_away_after_ms),
        interaction_lease_ms: Some(policy.interaction_lease_ms),
        heartbeat_retention_days: Some(policy.heartbeat_retention_days),
        visibility: Some(policy.visibility),
        rules: None,
    };
    PolicyCommand::Change { patch, actor: Some(ANA) }
}

#[test]
fn two_changes_of_different_intervals_do_not_undo_each_other() {
    let patch = PolicyPatch { grace_ms: Some(1_000), ..PolicyPatch::default() };
    let stored = Policy { lease_ms: 200_000, ..Policy::default() };
    let both = Policy { grace_ms: 1_000, ..stored.clone() };
    policy()
        .given(vec![changed(stored)])
        .when(PolicyCommand::Change { patch, actor: Some(ANA) })
        .then_expect_events(vec![changed(both)]);
}

#[test]
fn a_new_database_is_seeded_with_a_policy_once() {
    let seed = || PolicyCommand::Seed(Policy::default());
    policy()
        .given_no_previous_events()
        .when(seed())
        .then_expect_events(vec![PolicyEvent::Changed { policy: Policy::default(), actor: None }]);
    let stored = Policy { grace_ms: 1_000, ..Policy::default() };
    policy().given(vec![changed(stored)]).when(seed()).then_expect_events(vec![]);
}

#[test]
fn a_change_of_the_policy_is_an_event_and_no_change_is_none() {
    let longer = || Policy { lease_ms: 200_000, ..Policy::default() };
    let before = || policy().given(vec![changed(Policy::default())]);
    before().when(change(&longer())).then_expect_events(vec![changed(longer())]);
    before().when(change(&Policy::default())).then_expect_events(vec![]);
    policy()
        .given(vec![changed(longer()), changed(Policy::default())])
        .when(change(&longer()))
        .then_expect_events(vec![changed(longer())]);
}

#[test]
fn a_policy_that_would_log_honest_clients_out_is_refused() {
    let short = || Policy { lease_ms: 64_999, ..Policy::default() };
    let refusal = || PolicyRefusal::LeaseTooShort { lease_ms: 64_999, least: 65_000 };
    policy().given_no_previous_events().when(change(&short())).then_expect_error(refusal());
    policy()
        .given_no_previous_events()
        .when(PolicyCommand::Seed(short()))
        .then_expect_error(refusal());
    let never = Policy { interaction_lease_ms: 120_000, ..Policy::default() };
    policy()
        .given_no_previous_events()
        .when(change(&never))
        .then_expect_error(PolicyRefusal::InteractionLeaseTooShort);
}
