//! The stored form of every event: a line of `tests/golden/events.jsonl` each. What is stored is
//! stored for ever, so a line may be added, and none changed.

use domain::aggregate::PolicyEvent;
use domain::automation::{Action, Condition, Rule, SourcePattern};
use domain::event::GuardRefusal;
use domain::policy::Visibility;
use domain::webhook::{DisabledBy, Endpoint, Filter, WebhookEvent};
use domain::{Body, DeviceKind, Event, Policy, Reason, Status};
use serde_json::Value;

use crate::given::{
    ANA, PHONE, at, back, beat, beat_idle, claim_ended, claimed, claimed_until,
    claimed_while_active, cleared, closed_for, event, expired, expired_idle, from_elsewhere,
    hidden, ms, opened, opened_idle, polled, resumed, turned_active, turned_idle,
};

const EVENTS: &str = include_str!("../golden/events.jsonl");
const OLDER: &str = include_str!("../golden/events_older.jsonl");
const POLICY: &str = include_str!("../golden/policy_events.jsonl");
const WEBHOOKS: &str = include_str!("../golden/webhook_events.jsonl");
const NAMES: [&str; 14] = [
    "session_opened",
    "session_resumed",
    "heartbeat",
    "session_closed",
    "session_expired",
    "activity_changed",
    "claim_set",
    "claim_cleared",
    "claim_expired",
    "visibility_changed",
    "action_allowed",
    "action_refused",
    "corrected",
    "user_erased",
];

/// Every variant, and every value of the enums within.
fn events() -> Vec<Event> {
    let mut events = vec![
        opened(PHONE, 0),
        opened_idle(PHONE, 0),
        polled(PHONE, 0),
        from_elsewhere(opened(PHONE, 0)),
        resumed(PHONE, 1),
        beat(PHONE, 2),
        Event { at: at(2) + ms(250), ..beat_idle(PHONE, 2, 1_500) },
        from_elsewhere(beat(PHONE, 2)),
        expired(PHONE, 3),
        expired_idle(PHONE, 3),
        from_elsewhere(expired(PHONE, 3)),
        from_elsewhere(closed_for(PHONE, 3, Reason::UserRequest)),
        turned_idle(PHONE, 4),
        turned_active(PHONE, 4),
        claimed("admin", Status::Away, 5),
        claimed("system:timer:42", Status::Busy, 5),
        claimed_until("manual", Status::Dnd, 5, 65),
        claimed_while_active("manual", Status::Online, 5),
        cleared("system:timer:42", 6),
        claim_ended("manual", 65),
        hidden(7),
        back(8),
        event(
            9,
            Body::ActionAllowed {
                action: "timer.start".to_owned(),
                require: vec![Status::Online, Status::Offline],
                beneath: None,
            },
        ),
        event(11, Body::Corrected { corrects: 4_294_967_297 }),
        event(12, Body::UserErased {}),
    ];
    for kind in [DeviceKind::Mobile, DeviceKind::Desktop, DeviceKind::Service, DeviceKind::Other] {
        let mut login = opened(PHONE, 0);
        if let Body::SessionOpened { kind: stored, .. } = &mut login.body {
            *stored = kind;
        }
        events.push(login);
    }
    for reason in [
        Reason::UserRequest,
        Reason::LostCarrier,
        Reason::IdleTimeout,
        Reason::SessionTimeout,
        Reason::AdminReset,
    ] {
        events.push(closed_for(PHONE, 3, reason));
    }
    for code in
        [GuardRefusal::StatusRefused, GuardRefusal::ClaimConflict, GuardRefusal::SequenceChanged]
    {
        let (action, require) = ("timer.start".to_owned(), vec![Status::Busy]);
        events.push(event(10, Body::ActionRefused { action, require, code, beneath: None }));
    }
    let (action, require, beneath) = ("stop".to_owned(), vec![Status::Online], Some(Status::Away));
    events.push(event(
        12,
        Body::ActionAllowed { action: action.clone(), require: vec![Status::Away], beneath },
    ));
    let code = GuardRefusal::StatusRefused;
    events.push(event(13, Body::ActionRefused { action, require, code, beneath }));
    events
}

fn policy_events() -> Vec<PolicyEvent> {
    let strict = Policy { visibility: Visibility::Groups, grace_ms: 20_000, ..Policy::default() };
    let rule = |name: &str, then| Rule {
        name: name.to_owned(),
        when: Condition { status: Status::Offline, for_ms: 600_000 },
        then,
    };
    let rules = vec![
        rule("tidy", Action::ClearClaims(SourcePattern("system:*".to_owned()))),
        rule("tell", Action::Webhook(PHONE)),
    ];
    vec![
        PolicyEvent::Changed { policy: Policy::default(), actor: None },
        PolicyEvent::Changed { policy: strict, actor: Some(ANA) },
        PolicyEvent::Changed { policy: Policy { rules, ..Policy::default() }, actor: None },
    ]
}

fn webhook_events() -> Vec<WebhookEvent> {
    let filter = Filter {
        event_types: vec!["session_opened".to_owned()],
        users: vec![ANA],
        groups: vec!["ward".parse().unwrap()],
        from_status: vec![Status::Offline],
        to_status: vec![Status::Online],
    };
    let endpoint = Endpoint { url: "https://example.com/in".to_owned(), filter };
    vec![
        WebhookEvent::Created { endpoint: endpoint.clone() },
        WebhookEvent::Changed { endpoint },
        WebhookEvent::Enabled {},
        WebhookEvent::Disabled { by: DisabledBy::Admin },
        WebhookEvent::Disabled { by: DisabledBy::Gone },
        WebhookEvent::SecretRotated {},
        WebhookEvent::Deleted {},
    ]
}

#[track_caller]
fn assert_golden<T>(events: &[T], golden: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let stored: Vec<_> = events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
    let lines: Vec<_> = golden.lines().collect();
    for (stored, line) in stored.iter().zip(&lines) {
        assert_eq!(stored, line, "a stored shape changed");
    }
    assert_eq!(stored.len(), lines.len(), "now stored:\n{}", stored.join("\n"));
    for (event, line) in events.iter().zip(&lines) {
        assert_eq!(&serde_json::from_str::<T>(line).unwrap(), event, "{line}");
    }
}

#[test]
fn every_event_is_stored_as_it_always_was_and_reads_back() {
    assert_golden(&events(), EVENTS);
}

#[test]
fn a_change_of_the_policy_is_stored_as_it_always_was_and_reads_back() {
    assert_golden(&policy_events(), POLICY);
}

#[test]
fn what_happens_to_a_webhook_is_stored_as_it_always_was_and_reads_back() {
    assert_golden(&webhook_events(), WEBHOOKS);
}

#[test]
fn every_type_of_event_has_a_golden_line_under_its_stored_name() {
    let events = events();
    for name in NAMES {
        assert!(events.iter().any(|event| event.body.name() == name), "no golden {name}");
    }
    for (event, line) in events.iter().zip(EVENTS.lines()) {
        let stored: Value = serde_json::from_str(line).unwrap();
        assert_eq!(stored["type"], event.body.name());
        assert!(NAMES.contains(&event.body.name()));
    }
}

#[test]
fn shapes_written_before_a_field_was_there_still_read() {
    let expected = [opened(PHONE, 0), beat(PHONE, 2), closed_for(PHONE, 3, Reason::UserRequest)];
    let more = [expired(PHONE, 3), claimed("manual", Status::Dnd, 5)];
    let read: Vec<Event> =
        OLDER.lines().take(5).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, expected.into_iter().chain(more).collect::<Vec<_>>());
    // Fields in another order, and one that only a later release knows.
    let read: Vec<Event> =
        OLDER.lines().skip(5).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, [turned_idle(PHONE, 4), claimed_until("manual", Status::Dnd, 5, 65)]);
}

#[test]
fn a_policy_stored_before_a_field_was_there_has_its_default() {
    let line = r#"{"type":"policy_changed","policy":{"lease_ms":90000}}"#;
    let PolicyEvent::Changed { policy, actor } = serde_json::from_str(line).unwrap();
    assert_eq!(policy, Policy { lease_ms: 90_000, ..Policy::default() });
    assert_eq!(actor, None);
}

#[test]
fn a_policy_stored_by_a_later_release_still_reads() {
    let line = r#"{"type":"policy_changed","policy":{"lease_ms":90000,"later":1},"later":2}"#;
    assert!(serde_json::from_str::<PolicyEvent>(line).is_ok());
}

#[test]
fn an_event_of_no_known_type_is_an_error_and_not_a_guess() {
    let line = r#"{"at":"2023-11-14T22:13:20Z","type":"session_renamed"}"#;
    assert!(serde_json::from_str::<Event>(line).is_err());
}

#[test]
fn names_in_text_and_in_json_are_the_same() {
    for status in Status::ALL {
        assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        assert_eq!(status.as_str().parse(), Ok(status));
    }
    for event in events() {
        match &event.body {
            Body::SessionClosed { reason, .. } => {
                assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
                assert_eq!(reason.as_str().parse(), Ok(*reason));
            }
            Body::SessionOpened { kind, .. } => {
                assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
                assert_eq!(kind.as_str().parse(), Ok(*kind));
            }
            Body::ClaimSet { source, .. } => {
                assert_eq!(serde_json::to_value(source).unwrap(), source.to_string());
                assert_eq!(source.to_string().parse().as_ref(), Ok(source));
            }
            Body::SessionResumed { .. }
            | Body::Heartbeat { .. }
            | Body::SessionExpired { .. }
            | Body::ActivityChanged { .. }
            | Body::ClaimCleared { .. }
            | Body::ClaimExpired { .. }
            | Body::VisibilityChanged { .. }
            | Body::ActionAllowed { .. }
            | Body::ActionRefused { .. }
            | Body::Corrected { .. }
            | Body::UserErased {} => {}
        }
    }
}
