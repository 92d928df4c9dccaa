//! What holds for every history: any commands, in any order, by any steps of time.

use chrono::TimeDelta;
use domain::command::{Expect, Expiry, GuardClaim, ImportLine, ImportedChange, Open, SetClaim};
use domain::decide::decide;
use domain::lapse::{lease_end, settled};
use domain::policy::PolicyPatch;
use domain::shown::shown;
use domain::what_if::{Span, WhatIf};
use domain::{
    Audience, Body, Command, Context, Decision, DeviceKind, Outcome, Policy, Presence, Reason,
    Recorded, Refusal, SessionId, Silence, Silences, Status, Timestamp, When, rules,
};
use proptest::prelude::*;

use crate::given::{at, guard, src};

const CASES: u32 = 600;
const STEPS: usize = 40;
const SOURCES: [&str; 4] = ["admin", "manual", "system:timer:1", "system:call"];

/// A command, how long after the previous one it is decided, and how long before that it was
/// taken in.
#[derive(Debug, Clone)]
struct Step {
    command: Command,
    pause_ms: i64,
    age_ms: i64,
}

fn session() -> impl Strategy<Value = SessionId> {
    (1_u128..4).prop_map(SessionId::from_u128)
}

fn source() -> impl Strategy<Value = domain::Source> {
    prop::sample::select(SOURCES.as_slice()).prop_map(src)
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(Status::ALL.as_slice())
}

fn idle_ms() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(299_999), Just(300_000), 0_u32..900_000]
}

fn open() -> impl Strategy<Value = Command> {
    (session(), idle_ms(), any::<bool>()).prop_map(|(session, idle_ms, interaction_driven)| {
        Command::Open(Open { session, kind: DeviceKind::Web, idle_ms, interaction_driven })
    })
}

fn set_claim() -> impl Strategy<Value = Command> {
    let expires = prop_oneof![
        Just(None),
        (0_u64..400_000).prop_map(|ms| Some(Expiry::AfterMs(ms))),
        (0_i64..4_000).prop_map(|seconds| Some(Expiry::At(at(seconds)))),
    ];
    let text = prop::option::of("[a-z]{1,3}");
    (source(), status(), any::<bool>(), expires, text).prop_map(
        |(source, status, while_active, expires, text)| {
            Command::SetClaim(SetClaim { source, status, while_active, expires, text })
        },
    )
}

fn a_guard() -> impl Strategy<Value = Command> {
    let expect = prop::sample::select(vec![None, Some(Expect::Absent), Some(Expect::Present)]);
    let claim = (source(), prop::option::of(status()), expect)
        .prop_map(|(source, status, expect)| GuardClaim { source, status, expect });
    let require = prop::collection::vec(status(), 0..4);
    let overlook = prop::sample::select(vec![None, Some("system:")]);
    (require, prop::option::of(claim), prop::option::of(0_i64..30), overlook).prop_map(
        |(require, claim, if_sequence, overlook)| {
            let asked = domain::command::Guard { claim, if_sequence, ..guard(&require) };
            Command::Guard(domain::command::Guard { overlook, ..asked })
        },
    )
}

fn imported() -> impl Strategy<Value = Command> {
    let what = prop_oneof![
        3 => Just(ImportedChange::Opened(DeviceKind::Other)),
        2 => Just(ImportedChange::Heartbeat),
        2 => Just(ImportedChange::Closed(Reason::UserRequest)),
        1 => Just(ImportedChange::Expired(Reason::LostCarrier)),
    ];
    prop_oneof![
        4 => (what, session(), -9_i64..3).prop_map(|(what, session, tens)| {
            Command::Import(ImportLine { what, session, at: at(10 * tens) })
        }),
        1 => Just(Command::ImportEnd),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let end = prop::sample::select(vec![Reason::UserRequest, Reason::AdminReset]);
    prop_oneof![
        5 => open(),
        8 => (session(), idle_ms())
            .prop_map(|(session, idle_ms)| Command::Heartbeat { session, idle_ms }),
        2 => (session(), end.clone())
            .prop_map(|(session, reason)| Command::Close { session, reason }),
        1 => (session(), 0_i64..3_600)
            .prop_map(|(session, seconds)| Command::CloseSilent {
                session,
                last_seen: at(seconds),
                reason: Reason::LostCarrier,
            }),
        1 => end.prop_map(|reason| Command::CloseAll { reason }),
        1 => session().prop_map(|session| Command::Resume { session }),
        3 => set_claim(),
        1 => source().prop_map(|source| Command::ClearClaim { source }),
        1 => any::<bool>().prop_map(|invisible| Command::SetVisibility { invisible }),
        3 => a_guard(),
        3 => imported(),
        2 => Just(Command::Settle),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Often at once, often around a deadline, sometimes long after everything is over.
    let pause = prop_oneof![
        3 => Just(0),
        6 => 0_i64..60_000,
        2 => prop::sample::select(vec![119_999, 120_000, 120_001, 300_000]),
        1 => 0_i64..700_000,
    ];
    let age = prop_oneof![4 => Just(0), 3 => 0_i64..2_000, 1 => 0_i64..400_000];
    // No request lives longer than any lease: a login is never over before it is decided.
    let step = (command(), pause, age).prop_map(|(command, pause_ms, age_ms)| {
        let age_ms_max = if matches!(command, Command::Open(_)) { 60_000 } else { age_ms };
        Step { command, pause_ms, age_ms: age_ms.min(age_ms_max) }
    });
    prop::collection::vec(step, 1..STEPS)
}

/// Up to three outages, none over another.
fn silences() -> impl Strategy<Value = Silences> {
    prop::collection::vec((0_i64..400, 6_i64..400), 0..3).prop_map(|gaps| {
        let mut end = 0;
        let mut silences = Vec::new();
        for (pause, length) in gaps {
            let from = end + pause;
            end = from + length;
            silences.push(Silence { from: at(from), to: at(end) });
        }
        Silences::new(silences)
    })
}

/// One user's history as it grows, with everything that must hold of it.
struct History {
    state: Presence,
    events: Vec<Recorded>,
    policy: Policy,
    silences: Silences,
    now: Timestamp,
}

impl History {
    fn new(silences: Silences) -> Self {
        let (state, policy) = (Presence::default(), Policy::default());
        Self { state, events: Vec::new(), policy, silences, now: at(0) }
    }

    fn decide(&self, command: &Command, taken_at: Timestamp, now: Timestamp) -> Decision {
        let (policy, silences) = (&self.policy, &self.silences);
        let context = Context { now, taken_at, policy, silences, actor: None };
        decide(self.state.clone(), command, &context)
    }

    /// Decides the step at its time, lets `check` look, and makes the decision history.
    fn step(&mut self, step: &Step, check: impl Fn(&Self, &Step, Timestamp, &Decision)) {
        self.now += TimeDelta::milliseconds(step.pause_ms);
        let taken_at = self.now - TimeDelta::milliseconds(step.age_ms);
        let decision = self.decide(&step.command, taken_at, self.now);
        check(self, step, taken_at, &decision);
        let after = decision.after.clone();
        let (events, state) = decision.resolved(taken_at);
        assert_eq!(state, after, "the state decided is the state resolved");
        self.events.extend(events);
        self.state = state;
    }
}

/// A decision made by another cqrs-es tool is told by its events alone.
fn assert_told_by_events(history: &History, _: &Step, _: Timestamp, decision: &Decision) {
    let events = decision.events.iter().map(|recorded| recorded.event.clone()).collect();
    let told = Decision::of_events(history.state.clone(), events);
    assert_eq!(told.events, decision.events);
    assert_eq!(without_texts(told.after), without_texts(decision.after.clone()));
}

fn without_texts(mut state: Presence) -> Presence {
    for claim in &mut state.claims {
        claim.text = None;
    }
    state
}

fn assert_sound(history: &History) {
    let mut state = Presence::default();
    let (mut sequence, mut status, mut own_at) = (0, Status::Offline, None);
    for recorded in &history.events {
        let body = &recorded.event.body;
        assert_lease_over(&state, recorded, &history.silences);
        state.apply(&recorded.event);
        sequence += i64::from(body.is_transition());
        assert_eq!(recorded.sequence, sequence, "gapless");
        assert_eq!(state.sequence, sequence);
        assert_eq!(body.imported(), recorded.when == When::Exact);
        if body.imported() {
            continue;
        }
        assert_eq!(recorded.from, status, "from is the previous to: {recorded:?}");
        status = recorded.to;
        assert_eq!(rules::status(&state).0, status, "one status, the rules'");
        if body.is_transition() {
            assert!(own_at <= Some(recorded.event.at), "backwards: {recorded:?}");
            own_at = Some(recorded.event.at);
        }
    }
    assert_eq!(state.status, status);
    assert_eq!(state, without_texts(history.state.clone()), "the state is the fold");
}

fn assert_lease_over(before: &Presence, recorded: &Recorded, silences: &Silences) {
    if let Body::SessionExpired { session, imported: false, .. } = recorded.event.body {
        let live = before.session(session).expect("only a live session expires");
        assert_eq!(recorded.event.at, lease_end(live, silences), "at its deadline, not before");
    }
}

fn bodies(decision: &Decision) -> Vec<&Body> {
    decision.events.iter().map(|recorded| &recorded.event.body).collect()
}

/// Any instant before `valid_until` gives the same; a heartbeat is of its own instant anyway.
fn assert_valid(history: &History, step: &Step, taken_at: Timestamp, decision: &Decision) {
    let future = decision.outcome == Outcome::Refused(Refusal::InTheFuture);
    if future || matches!(step.command, Command::Heartbeat { .. }) {
        return;
    }
    let last = decision.valid_until.map_or(history.now + TimeDelta::days(9), |until| {
        assert!(until > history.now, "a decision holds for a moment at least");
        until - TimeDelta::microseconds(1)
    });
    let half = history.now + (last - history.now) / 2;
    for later in [half, last] {
        let again = history.decide(&step.command, taken_at, later);
        assert_eq!(bodies(&again), bodies(decision), "at {later}");
        assert_eq!(again.outcome, decision.outcome);
    }
}

/// However late a heartbeat gets here, only its intake decides: more time can but add lapses.
fn assert_intake_decides(history: &History, step: &Step, taken_at: Timestamp, first: &Decision) {
    if matches!(step.command, Command::Heartbeat { .. }) {
        for late in [1, 119_000, 130_000, 500_000] {
            let now = history.now + TimeDelta::milliseconds(late);
            let later = history.decide(&step.command, taken_at, now);
            assert_eq!(later.outcome, first.outcome);
            assert_eq!(later.events.get(..first.events.len()), Some(first.events.as_slice()));
        }
    }
}

/// While invisible, others are shown the same whatever happens, now and later.
fn assert_nothing_leaks(before: &Presence, history: &History) {
    if !(before.invisible && history.state.invisible) {
        return;
    }
    let frozen = shown(before, Audience::Others);
    assert_eq!(shown(&history.state, Audience::Others), frozen);
    let later = history.now + TimeDelta::seconds(200);
    if let Some(read) = settled(&history.state, &history.silences, later) {
        assert_eq!(shown(&read, Audience::Others), frozen);
    }
}

/// A lapse is never recorded before what is already there, nor before one recorded earlier.
fn assert_lapses_in_order(history: &History, decision: &Decision) {
    let recorded = history.events.iter().chain(&decision.events);
    let lapses = recorded.filter(|recorded| recorded.when == When::Deadline);
    let mut latest = None;
    for lapse in lapses {
        assert!(latest <= Some(lapse.event.at), "{lapse:?} after {latest:?}");
        assert!(lapse.event.at <= history.now);
        latest = Some(lapse.event.at);
    }
}

fn assert_settles_once(history: &History) {
    let once = history.decide(&Command::Settle, history.now, history.now);
    assert_eq!(once.events, [], "every decision leaves a settled state");
    assert_eq!(settled(&history.state, &history.silences, history.now), None);
    for later in [60, 120, 400, 9_000] {
        let later = history.now + TimeDelta::seconds(later);
        let once = history.decide(&Command::Settle, later, later);
        let (policy, silences) = (&history.policy, &history.silences);
        let context = Context { now: later, taken_at: later, policy, silences, actor: None };
        let twice = decide(once.after.clone(), &Command::Settle, &context);
        assert_eq!((twice.events.len(), &twice.after), (0, &once.after));
        let read = settled(&history.state, silences, later);
        assert_eq!(read.as_ref().unwrap_or(&history.state), &once.after, "a read sees the same");
    }
}

/// The spans as the log tells them, by a fold of the test's own.
fn told(events: &[Recorded]) -> Vec<Span> {
    let mut events: Vec<&Recorded> = events.iter().collect();
    events.retain(|recorded| recorded.event.body.is_transition());
    events.sort_by_key(|recorded| (recorded.event.at, recorded.sequence));
    let mut line: Vec<(Timestamp, Status)> = Vec::new();
    for recorded in events {
        // Imported events are written down in another order than that in which they happened.
        line.retain(|(at, _)| *at != recorded.event.at);
        line.push((recorded.event.at, recorded.to));
    }
    line.dedup_by_key(|(_, status)| *status);
    let ends = line.iter().skip(1).map(|(at, _)| Some(*at)).chain([None]);
    let pairs = line.iter().zip(ends);
    pairs.map(|((from, status), to)| Span { from: *from, to, status: *status }).collect()
}

/// The same events, where no name of a session is ever used twice: `append` sees to that.
fn named_apart(events: &[Recorded]) -> Vec<domain::Event> {
    let mut names = std::collections::HashMap::new();
    let mut fresh = 100..;
    let renamed = |recorded: &Recorded| {
        let event = &recorded.event;
        let Some(session) = event.body.session() else { return event.clone() };
        if matches!(event.body, Body::SessionOpened { .. }) {
            names.insert(session, SessionId::from_u128(fresh.next().unwrap()));
        }
        let mut told = serde_json::to_value(event).unwrap();
        told["session"] = serde_json::json!(names[&session]);
        serde_json::from_value(told).unwrap()
    };
    events.iter().map(renamed).collect()
}

fn imports(step: &Step) -> bool {
    matches!(step.command, Command::Import(_) | Command::ImportEnd)
}

/// How long somebody was anything but offline.
fn present_ms(spans: &[Span], until: Timestamp) -> i64 {
    let present = spans.iter().filter(|span| span.status != Status::Offline);
    present.map(|span| (span.to.unwrap_or(until) - span.from).num_milliseconds()).sum()
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_history_has_one_status_no_gap_no_step_back_and_no_early_time_out(
        steps in steps(), silences in silences(),
    ) {
        let mut history = History::new(silences);
        for step in &steps {
            history.step(step, |history, _, _, decision| {
                assert_lapses_in_order(history, decision);
            });
        }
        assert_sound(&history);
    }

    #[test]
    fn settling_twice_changes_nothing(steps in steps(), silences in silences()) {
        let mut history = History::new(silences);
        for step in &steps {
            history.step(step, |_, _, _, _| ());
            assert_settles_once(&history);
        }
    }

    #[test]
    fn a_decision_is_the_same_at_any_instant_until_it_holds_no_longer(
        steps in steps(), silences in silences(),
    ) {
        let mut history = History::new(silences);
        for step in &steps {
            history.step(step, assert_valid);
        }
    }

    #[test]
    fn a_heartbeat_wins_or_loses_by_its_intake_alone(steps in steps(), silences in silences()) {
        let mut history = History::new(silences);
        for step in &steps {
            history.step(step, assert_intake_decides);
        }
    }

    #[test]
    fn a_decision_can_be_told_by_its_events(steps in steps(), silences in silences()) {
        let mut history = History::new(silences);
        for step in &steps {
            history.step(step, assert_told_by_events);
        }
    }

    #[test]
    fn nothing_that_happens_gives_an_invisible_user_away(
        steps in steps(), silences in silences(),
    ) {
        let mut history = History::new(silences);
        for step in &steps {
            let before = history.state.clone();
            history.step(step, |_, _, _, _| ());
            assert_nothing_leaks(&before, &history);
        }
    }

    #[test]
    fn every_event_and_every_state_survives_being_stored(steps in steps()) {
        let mut history = History::new(Silences::default());
        for step in &steps {
            history.step(step, |_, _, _, _| ());
        }
        for event in history.events.iter().map(|recorded| &recorded.event) {
            let stored = serde_json::to_string(event).unwrap();
            prop_assert_eq!(&serde_json::from_str::<domain::Event>(&stored).unwrap(), event);
        }
        let stored = serde_json::to_string(&history.state).unwrap();
        prop_assert_eq!(serde_json::from_str::<Presence>(&stored).unwrap(), history.state);
    }

    #[test]
    fn under_the_policy_that_was_in_force_history_is_what_it_was(
        steps in steps(), silences in silences(),
    ) {
        let mut history = History::new(silences);
        for step in steps.iter().filter(|step| !imports(step)) {
            history.step(step, |_, _, _, _| ());
        }
        let settle = Step { command: Command::Settle, pause_ms: 0, age_ms: 0 };
        history.step(&settle, |_, _, _, _| ());
        let what_if =
            WhatIf { patch: PolicyPatch::default(), silences: history.silences.clone() };
        let events: Vec<_> = history.events.iter().map(|r| r.event.clone()).collect();
        let spans = what_if.spans(&events, &history.policy, history.now);
        prop_assert_eq!(spans, told(&history.events));
    }

    #[test]
    fn under_a_longer_lease_nobody_is_there_for_a_shorter_time(
        steps in steps(), silences in silences(), times in 2_u32..9,
    ) {
        let mut history = History::new(silences);
        for step in steps.iter().filter(|step| !imports(step)) {
            history.step(step, |_, _, _, _| ());
        }
        let lease_ms = Some(history.policy.lease_ms * times);
        let interaction_lease_ms = Some(history.policy.interaction_lease_ms * times);
        let patch = PolicyPatch { lease_ms, interaction_lease_ms, ..PolicyPatch::default() };
        let events = named_apart(&history.events);
        let under = |patch| {
            let what_if = WhatIf { patch, silences: history.silences.clone() };
            let spans = what_if.spans(&events, &history.policy, history.now);
            present_ms(&spans, history.now)
        };
        prop_assert!(under(PolicyPatch::default()) <= under(patch));
    }
}
