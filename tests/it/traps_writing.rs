//! Traps of a node's writer: conflicts, poison, retries, a full queue, a lock that is not let go.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use cqrs_es::persist::PersistedEventStore;
use cqrs_es::{AggregateContext, EventStore};
use domain::policy::PolicyPatch;
use domain::{Command, Policy, Presence, Status};
use postgres_es::PostgresEventRepository;
use projections::{Asked, Error, Executed};
use serde_json::{Value, json};
use sqlx::{Connection, Executor};
use tests::{eventually, within};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::traps_lab::{Lab, asked, beat, claim, close, guard, open, open_polling, receipt};

#[tokio::test]
async fn a_decision_on_what_another_node_has_outdated_is_decided_again() {
    let lab = Lab::with_nodes(2).await;
    lab.open("ana").await;
    let ana = lab.user("ana").await;
    let held = lab.hold().await;
    let mut asking = JoinSet::new();
    for (node, status) in lab.nodes.iter().zip([Status::Busy, Status::Dnd]) {
        let node = Arc::clone(node);
        asking.spawn(async move { node.execute(ana, &claim(status), asked()).await });
    }
    // Both stand before the log with a decision upon the same state.
    lab.waiting(2).await;
    held.release().await;
    let receipts: Vec<_> = asking.join_all().await.into_iter().map(receipt).collect();
    let mut sequences: Vec<i64> = receipts.iter().map(|receipt| receipt.sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, [2, 3]);
    assert_eq!(lab.names_of("ana").await, ["session_opened", "claim_set", "claim_set"]);
    lab.finish().await;
}

#[tokio::test]
async fn two_nodes_that_ask_the_same_guard_with_the_same_key_let_it_through_once() {
    let lab = Lab::with_nodes(2).await;
    lab.open("ana").await;
    let ana = lab.user("ana").await;
    let held = lab.hold().await;
    let mut asking = JoinSet::new();
    for node in &lab.nodes {
        let node = Arc::clone(node);
        let asked = Asked { key: Some("once".to_owned()), ..asked() };
        asking.spawn(async move { node.execute(ana, &guard(), asked).await.unwrap() });
    }
    lab.waiting(2).await;
    held.release().await;
    let answers = asking.join_all().await;
    let known = |executed: &&Executed| matches!(executed, Executed::KeyKnown);
    assert_eq!(answers.iter().filter(known).count(), 1, "{answers:?}");
    assert_eq!(lab.names_of("ana").await, ["session_opened", "action_allowed"]);
    lab.finish().await;
}

#[tokio::test]
async fn two_users_who_want_one_session_name_at_one_time_get_it_once() {
    let lab = Lab::with_nodes(2).await;
    let session = Uuid::now_v7();
    let held = lab.hold().await;
    let mut asking = JoinSet::new();
    for number in 0..8 {
        let node = Arc::clone(&lab.nodes[number % 2]);
        let user = lab.user(&format!("user-{number}")).await;
        asking.spawn(async move { node.execute(user, &open(session), asked()).await });
    }
    lab.waiting(2).await;
    held.release().await;
    let outcomes = asking.join_all().await.into_iter().map(|executed| receipt(executed).outcome);
    let opened = domain::Outcome::Opened { existed: false };
    let taken = domain::Outcome::Refused(domain::Refusal::SessionTaken);
    let (got, refused): (Vec<_>, Vec<_>) = outcomes.partition(|outcome| *outcome == opened);
    assert_eq!(got.len(), 1);
    assert!(refused.len() == 7 && refused.iter().all(|outcome| *outcome == taken), "{refused:?}");
    lab.finish().await;
}

#[tokio::test]
async fn what_postgresql_refuses_of_one_user_fails_nobody_else_in_the_batch() {
    let lab = Lab::with_nodes(1).await;
    let session = lab.open("zoe").await;
    let (zoe, node) = (lab.user("zoe").await, &lab.nodes[0]);
    let mut users = Vec::new();
    for number in 0..24 {
        users.push(lab.user(&format!("user-{number}")).await);
    }
    // One batch is under way; whatever comes meanwhile is the next one.
    let held = lab.hold().await;
    let ticking = Arc::clone(node);
    let first = tokio::spawn(async move { ticking.tick().await });
    lab.waiting(1).await;
    let mut asking = JoinSet::new();
    for (number, user) in users.into_iter().enumerate() {
        let (node, culprit) = (Arc::clone(node), number % 8 == 3);
        let text = if culprit { "a\0b" } else { "ab" };
        let detail: Option<Value> = Some(json!({ "device_id": text }));
        asking.spawn(async move {
            let asked = Asked { detail, ..asked() };
            (culprit, node.execute(user, &open(Uuid::now_v7()), asked).await)
        });
    }
    let beating = Arc::clone(node);
    let beaten =
        tokio::spawn(
            async move { beating.beat(beat(session, zoe, Duration::ZERO)).await.unwrap() },
        );
    eventually("all wait", async || node.queue_depth() == 25).await;
    held.release().await;
    first.await.unwrap().unwrap();
    for (culprit, executed) in asking.join_all().await {
        match executed {
            Ok(Executed::Done(_)) => assert!(!culprit),
            Err(Error::Refused) => assert!(culprit),
            other => panic!("{other:?}"),
        }
    }
    assert!(beaten.await.unwrap().is_some());
    assert_eq!(lab.number("select count(*) from live_session").await, 1 + 21);
    assert_eq!(lab.number("select count(*) from detail").await, 21);
    // The culprit is none for ever.
    let user = lab.user("user-3").await;
    receipt(node.execute(user, &open(Uuid::now_v7()), asked()).await);
    lab.finish().await;
}

#[tokio::test]
async fn heartbeats_of_one_session_that_arrive_together_are_all_appended() {
    let lab = Lab::with_nodes(1).await;
    let session = lab.open("ana").await;
    let (ana, node) = (lab.user("ana").await, &lab.nodes[0]);
    let held = lab.hold().await;
    let mut asking = JoinSet::new();
    for _ in 0..4 {
        let node = Arc::clone(node);
        asking.spawn(async move { node.beat(beat(session, ana, Duration::ZERO)).await.unwrap() });
    }
    lab.waiting(1).await;
    held.release().await;
    let positions: HashSet<_> = asking.join_all().await.into_iter().map(Option::unwrap).collect();
    let logged: HashSet<i64> =
        lab.log("ana").await[1..].iter().map(|event| event.position).collect();
    assert_eq!((positions.len(), &positions), (4, &logged));
    lab.finish().await;
}

#[tokio::test]
async fn stock_postgres_es_replays_our_log_to_the_same_state() {
    let lab = Lab::with_nodes(1).await;
    let (node, ana) = (&lab.nodes[0], lab.user("ana").await);
    let (phone, laptop) = (Uuid::now_v7(), Uuid::now_v7());
    for command in [
        open(phone),
        open_polling(laptop),
        claim(Status::Dnd),
        guard(),
        Command::SetVisibility { invisible: true },
        close(phone),
    ] {
        receipt(node.execute(ana, &command, asked()).await);
    }
    lab.advance(150.0).await;
    receipt(node.execute(ana, &Command::Settle, asked()).await);
    let events = PostgresEventRepository::new(lab.pool.clone())
        .with_tables("presence_events", "no_snapshots");
    let store = PersistedEventStore::<_, Presence>::new_event_store(events);
    let mut replayed = store.load_aggregate(&ana.to_string()).await.unwrap();
    assert_eq!(*replayed.aggregate(), lab.load("ana").await.state);
    assert!(replayed.aggregate().sequence > 6, "time has turned a session idle");
    lab.finish().await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_loses_nothing_that_it_took() {
    const QUEUE: usize = 4;
    let mut lab = Lab::start().await;
    let node = lab.join(Policy::default(), QUEUE).await;
    let held = lab.hold().await;
    let tick = |node: &Arc<projections::Realm>| {
        let node = Arc::clone(node);
        async move { node.tick().await }
    };
    let mut waiting = JoinSet::new();
    waiting.spawn(tick(&node));
    lab.waiting(1).await;
    let ana = lab.user("ana").await;
    let asking = Arc::clone(&node);
    let opening =
        tokio::spawn(async move { asking.execute(ana, &open(Uuid::now_v7()), asked()).await });
    eventually("it waits", async || node.queue_depth() == 1).await;
    (1..QUEUE).for_each(|_| drop(waiting.spawn(tick(&node))));
    eventually("the queue is full", async || node.queue_depth() == QUEUE).await;
    let began = Instant::now();
    for _ in 0..10 {
        assert!(matches!(node.tick().await, Err(Error::Overloaded)));
    }
    let user = lab.user("ben").await;
    let refused = node.execute(user, &open(Uuid::now_v7()), asked()).await;
    assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "at once");
    held.release().await;
    for ticked in waiting.join_all().await {
        ticked.unwrap();
    }
    receipt(opening.await.unwrap());
    assert_eq!(lab.names_of("ben").await, Vec::<String>::new());
    lab.finish().await;
}

#[tokio::test]
async fn a_request_that_is_given_up_harms_neither_its_command_nor_the_next() {
    let lab = Lab::with_nodes(1).await;
    let ana = lab.user("ana").await;
    let held = lab.hold().await;
    let node = Arc::clone(&lab.nodes[0]);
    let session = Uuid::now_v7();
    let asking = tokio::spawn(async move { node.execute(ana, &open(session), asked()).await });
    lab.waiting(1).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    let node = Arc::clone(&lab.nodes[0]);
    let again = tokio::spawn(async move { node.execute(ana, &open(session), asked()).await });
    eventually("it waits", async || lab.nodes[0].queue_depth() == 1).await;
    held.release().await;
    let outcome = receipt(again.await.unwrap()).outcome;
    assert_eq!(outcome, domain::Outcome::Opened { existed: true });
    assert_eq!(lab.names_of("ana").await, ["session_opened"]);
    lab.finish().await;
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_nothing_is_written_twice() {
    let lab = Lab::with_nodes(1).await;
    let ana = lab.user("ana").await;
    for round in 0..5 {
        let held = lab.hold().await;
        let node = Arc::clone(&lab.nodes[0]);
        let command = claim(if round % 2 == 0 { Status::Busy } else { Status::Dnd });
        let asking = tokio::spawn(async move { node.execute(ana, &command, asked()).await });
        lab.waiting(1).await;
        // The call is cut off just before or just after its commit.
        let pid = "select pid from pg_locks where locktype = 'advisory' and not granted
            and database = (select oid from pg_database where datname = current_database())";
        let pid = lab.number(&pid.replacen("pid", "pid::bigint", 1)).await;
        held.release().await;
        lab.number(&format!("select count(pg_terminate_backend({pid}))")).await;
        assert_eq!(receipt(asking.await.unwrap()).sequence, round + 1);
    }
    assert_eq!(lab.names_of("ana").await, ["claim_set"; 5]);
    lab.finish().await;
}

#[tokio::test]
async fn whoever_holds_the_append_lock_for_10_s_is_ended() {
    let lab = Lab::with_nodes(1).await;
    let ana = lab.user("ana").await;
    let mut held = lab.hold().await;
    let began = Instant::now();
    let executed = lab.nodes[0].execute(ana, &open(Uuid::now_v7()), asked()).await;
    receipt(executed);
    let waited = began.elapsed();
    let bounds = Duration::from_secs(9)..Duration::from_secs(12);
    assert!(bounds.contains(&waited), "{waited:?}");
    assert!(!held.alive().await);
    lab.finish().await;
}

#[tokio::test]
async fn whoever_holds_the_append_lock_outside_a_transaction_can_be_ended_too() {
    let lab = Lab::start().await;
    let mut holder = lab.database.owner().await.unwrap();
    holder.execute("select pg_advisory_lock(append_lock_key())").await.unwrap();
    let began = lab.instant("select clock_timestamp()").await;
    let mut server = lab.server().await;
    let mut free = async |longer_than: &str| -> i32 {
        let query = format!("select free_append_lock(interval '{longer_than}')");
        sqlx::query_scalar(&query).fetch_one(&mut server).await.unwrap()
    };
    assert_eq!(free("1 hour").await, 0, "not before its time");
    let soon = began + TimeDelta::milliseconds(20);
    eventually("time passes", async || lab.instant("select clock_timestamp()").await > soon).await;
    assert_eq!(free("10 milliseconds").await, 1);
    lab.tick().await;
    assert!(holder.ping().await.is_err());
    lab.finish().await;
}

#[tokio::test]
async fn a_policy_change_that_was_not_relayed_before_a_crash_is_relayed_once_at_start_up() {
    let mut lab = Lab::start().await;
    lab.join(Policy::default(), 100).await.leave().await;
    let changed = "select count(*) from event where type = 'policy_changed'";
    assert_eq!(lab.number(changed).await, 1);
    // Committed by a node that was gone before it could tell the log.
    lab.run(
        "insert into events
         select aggregate_type, aggregate_id, 2, event_type, event_version,
                jsonb_set(payload::jsonb, '{policy,lease_ms}', '90000'), metadata from events",
    )
    .await;
    for _ in 0..2 {
        let node = lab.join(Policy::default(), 100).await;
        assert_eq!(node.policy().lease_ms, 90_000);
        assert_eq!(lab.number(changed).await, 2);
    }
    let last = "select (data ->> 'number')::bigint from event where type = 'policy_changed'
        order by position desc limit 1";
    assert_eq!(lab.number(last).await, 2);
    lab.finish().await;
}

#[tokio::test]
async fn what_holds_on_one_node_holds_on_every_node_within_a_second() {
    let lab = Lab::with_nodes(2).await;
    let root = lab.user("root").await;
    let patch = PolicyPatch { lease_ms: Some(90_000), ..PolicyPatch::default() };
    lab.nodes[0].change_policy(&patch, root).await.unwrap();
    let told = async || lab.nodes[1].policy().lease_ms == 90_000;
    // A second, and what a busy machine takes.
    within(Duration::from_secs(5), "the other node follows", told).await;
    let ana = lab.user("ana").await;
    let command = Command::Guard(domain::command::Guard {
        action: "x".to_owned(),
        require: vec![Status::Offline],
        claim: None,
        if_sequence: None,
        overlook: None,
    });
    let position = receipt(lab.nodes[0].execute(ana, &command, asked()).await).position;
    assert!(lab.nodes[1].reached(position).await);
    lab.finish().await;
}
