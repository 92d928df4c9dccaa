//! Traps of `append`, called by hand: what it accepts, what it refuses, and whom that concerns.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use domain::{Command, SessionId, Status, UserNo};
use projections::batch::{BEATS_MAX, Batch, Beat, COMMANDS_MAX};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::traps_lab::{Lab, beat, claim, close, guard, open};

/// Who appends at one time while a reader follows.
const WRITERS: usize = 8;
/// Batches of each.
const BATCHES: usize = 60;

async fn write(mut connection: PgConnection, beats: Vec<(SessionId, UserNo)>, lab_time: Instant) {
    for round in 0..BATCHES {
        // Batches of different sizes take different times to commit.
        let some = beats.iter().take(1 + round % beats.len());
        let beats: Vec<Beat> = some.map(|(s, u)| beat(*s, *u, Duration::ZERO)).collect();
        let batch = Batch { beats, ..Batch::default() };
        let answer = batch.send(&mut connection, Instant::now()).await.unwrap();
        assert!(answer.verdicts.bytes().all(|verdict| verdict == b'a'), "{:?}", lab_time.elapsed());
    }
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_above_its_last_position_never_misses_an_event_of_concurrent_writers() {
    let lab = Lab::start().await;
    let began = Instant::now();
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let mut beats = Vec::new();
        for number in 0..20 {
            let user_id = format!("user-{writer}-{number}");
            beats.push((lab.open(&user_id).await, lab.user(&user_id).await));
        }
        writers.push((lab.server().await, beats));
    }
    let mut reader = lab.server().await;
    let done = Arc::new(AtomicBool::new(false));
    let finished = Arc::clone(&done);
    let reading = tokio::spawn(async move {
        let mut found: Vec<i64> = Vec::new();
        loop {
            // Looked at before: what was committed by then must be found.
            let last = finished.load(Ordering::SeqCst);
            let from = found.last().copied().unwrap_or(0);
            let query = "select position from event where position > $1 order by position";
            let page: Vec<i64> =
                sqlx::query_scalar(query).bind(from).fetch_all(&mut reader).await.unwrap();
            found.extend(page);
            if last {
                return found;
            }
        }
    });
    let writing: Vec<_> = writers
        .into_iter()
        .map(|(connection, beats)| tokio::spawn(write(connection, beats, began)))
        .collect();
    for writer in writing {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let found = reading.await.unwrap();
    let all: Vec<i64> = sqlx::query_scalar("select position from event order by position")
        .fetch_all(&lab.pool)
        .await
        .unwrap();
    assert!(all.len() > WRITERS * BATCHES);
    assert_eq!(lab.number("select seqcache from pg_sequence").await, 1, "no cached positions");
    let missed: BTreeSet<_> = all.iter().filter(|at| !found.contains(at)).collect();
    assert_eq!(missed, BTreeSet::new());
    assert_eq!(found, all);
    lab.finish().await;
}

#[tokio::test]
async fn the_same_batch_again_gets_the_same_verdicts_and_writes_nothing() {
    let lab = Lab::start().await;
    let session = lab.open("ana").await;
    let ana = lab.user("ana").await;
    let stale = lab.decided("ana", &claim(Status::Dnd)).await;
    lab.commit(vec![lab.decided("ana", &claim(Status::Busy)).await]).await;
    let batch = Batch {
        beats: vec![beat(session, ana, Duration::ZERO), beat(Uuid::now_v7(), ana, Duration::ZERO)],
        commands: vec![stale, lab.decided("ben", &open(Uuid::now_v7())).await],
        ..Batch::default()
    };
    let first = lab.append(&batch).await;
    assert_eq!((first.verdicts.as_str(), first.replayed), ("acca", false));
    let events = lab.number("select count(*) from event").await;
    lab.advance(10.0).await;
    let second = lab.append(&batch).await;
    assert!(second.replayed);
    assert_eq!(second.verdicts, first.verdicts);
    assert_eq!(second.first_position, first.first_position);
    assert_eq!((second.head, second.head_found), (first.head, first.head_found));
    assert_eq!((second.recorded_at, second.taken_at), (first.recorded_at, first.taken_at));
    assert_eq!(lab.number("select count(*) from event").await, events);
    lab.finish().await;
}

#[tokio::test]
async fn a_batch_sent_again_while_the_first_call_still_runs_is_appended_once() {
    let lab = Lab::start().await;
    let decided = lab.decided("ana", &open(Uuid::now_v7())).await;
    let batch = Arc::new(Batch { commands: vec![decided], ..Batch::default() });
    let mut first = lab.server().await;
    let mut running = first.begin().await.unwrap();
    let original = batch.send(&mut running, Instant::now()).await.unwrap();
    let (mut other, again) = (lab.server().await, Arc::clone(&batch));
    let retry = tokio::spawn(async move { again.send(&mut other, Instant::now()).await.unwrap() });
    lab.waiting(1).await;
    running.commit().await.unwrap();
    let retried = retry.await.unwrap();
    assert!(!original.replayed && retried.replayed);
    assert_eq!(retried.verdicts, "a");
    assert_eq!(retried.first_position, original.first_position);
    assert_eq!(lab.names_of("ana").await, ["session_opened"]);
    lab.finish().await;
}

#[tokio::test]
async fn a_first_call_that_came_to_nothing_leaves_the_work_to_the_second() {
    let lab = Lab::start().await;
    let decided = lab.decided("ana", &open(Uuid::now_v7())).await;
    let batch = Batch { commands: vec![decided], ..Batch::default() };
    let mut connection = lab.server().await;
    let mut running = connection.begin().await.unwrap();
    batch.send(&mut running, Instant::now()).await.unwrap();
    running.rollback().await.unwrap();
    let second = lab.append(&batch).await;
    assert_eq!((second.verdicts.as_str(), second.replayed), ("a", false));
    assert_eq!(lab.names_of("ana").await, ["session_opened"]);
    lab.finish().await;
}

#[tokio::test]
async fn expected_is_the_position_of_the_last_transition_and_only_0_inserts() {
    let lab = Lab::start().await;
    let mut never_seen = lab.decided("ana", &open(Uuid::now_v7())).await;
    assert_eq!(never_seen.expected, 0);
    never_seen.expected = 1;
    assert_eq!(lab.commit(vec![never_seen]).await, "c");
    let twice = lab.decided("ana", &open(Uuid::now_v7())).await;
    let session = lab.open("ana").await;
    assert_eq!(lab.commit(vec![twice]).await, "c");
    let at = lab.load("ana").await.position;
    for wrong in [0, at - 1, at + 1] {
        let mut decided = lab.decided("ana", &claim(Status::Busy)).await;
        decided.expected = wrong;
        assert_eq!(lab.commit(vec![decided]).await, "c", "{wrong}");
    }
    // A heartbeat is no transition: it changes nothing that a decision stands on.
    let ana = lab.user("ana").await;
    let decided = lab.decided("ana", &claim(Status::Busy)).await;
    assert_eq!(lab.beat(vec![beat(session, ana, Duration::ZERO)]).await, "a");
    assert_eq!(lab.commit(vec![decided]).await, "a");
    lab.finish().await;
}

#[tokio::test]
async fn one_users_conflict_fails_nobody_else_in_the_batch() {
    let lab = Lab::start().await;
    lab.open("ana").await;
    let (ana, ben) = (lab.open("ana").await, lab.open("ben").await);
    let stale = lab.decided("ana", &claim(Status::Dnd)).await;
    lab.commit(vec![lab.decided("ana", &claim(Status::Busy)).await]).await;
    let users = [lab.user("ana").await, lab.user("ben").await];
    let batch = Batch {
        beats: vec![
            beat(Uuid::now_v7(), users[0], Duration::ZERO),
            beat(ana, users[0], Duration::ZERO),
            Beat { active: false, idle_ms: 400_000, ..beat(ben, users[1], Duration::ZERO) },
        ],
        commands: vec![
            stale,
            lab.decided("ben", &claim(Status::Away)).await,
            lab.decided("eve", &open(ben)).await,
            lab.decided("fay", &open(Uuid::now_v7())).await,
        ],
        ..Batch::default()
    };
    let answer = lab.append(&batch).await;
    assert_eq!(answer.verdicts, "cac".to_owned() + "casa");
    // Positions are dealt by rank, whoever was refused.
    let first = answer.first_position;
    let positions: Vec<i64> = lab.log("fay").await.iter().map(|event| event.position).collect();
    assert_eq!(positions, [first + 3 + 3]);
    assert_eq!(lab.log("ana").await.last().unwrap().position, first + 1);
    lab.finish().await;
}

#[tokio::test]
async fn anothers_and_a_closed_session_id_are_refused_by_verdict_not_by_constraint() {
    let lab = Lab::start().await;
    let session = lab.open("ana").await;
    assert_eq!(lab.commit(vec![lab.decided("ben", &open(session)).await]).await, "s");
    // Its owner ends it in the very batch in which another wants its name.
    let batch =
        vec![lab.decided("ana", &close(session)).await, lab.decided("ben", &open(session)).await];
    assert_eq!(lab.commit(batch).await, "as");
    for user_id in ["ana", "ben"] {
        assert_eq!(lab.commit(vec![lab.decided(user_id, &open(session)).await]).await, "e");
    }
    assert_eq!(lab.names_of("ben").await, Vec::<String>::new());
    lab.finish().await;
}

#[tokio::test]
async fn the_name_of_a_session_that_is_over_but_not_yet_swept_is_not_used_twice() {
    let lab = Lab::start().await;
    let session = lab.open("ana").await;
    lab.advance_to(lab.lease_end(session).await).await;
    let again = lab.decided("ana", &open(session)).await;
    assert_eq!(again.decision.events.len(), 2, "the time-out, then a login");
    assert_eq!(lab.commit(vec![again]).await, "e", "its own, and over: not somebody else's");
    lab.finish().await;
}

#[tokio::test]
async fn a_lapse_is_accepted_only_where_append_finds_the_same_deadline() {
    let lab = Lab::start().await;
    let session = lab.open("ana").await;
    let ana = lab.user("ana").await;
    let deadline = lab.lease_end(session).await;
    // A node whose clock is ahead.
    let early = lab.decided_at("ana", &Command::Settle, deadline).await;
    assert_eq!(early.decision.events.len(), 1);
    assert_eq!(lab.commit(vec![early]).await, "c");
    // A node that does not know of a heartbeat.
    let unaware = lab.decided_at("ana", &Command::Settle, deadline).await;
    lab.advance(60.0).await;
    assert_eq!(lab.beat(vec![beat(session, ana, Duration::ZERO)]).await, "a");
    lab.advance_to(deadline + TimeDelta::seconds(1)).await;
    assert_eq!(lab.commit(vec![unaware]).await, "c");
    // A node that does not know of an outage.
    let deadline = lab.lease_end(session).await;
    let unaware = lab.decided_at("ana", &Command::Settle, deadline).await;
    lab.outage(30).await;
    lab.advance_to(deadline + TimeDelta::seconds(1)).await;
    assert_eq!(lab.commit(vec![unaware]).await, "c");
    assert_eq!(lab.names_of("ana").await, ["session_opened", "heartbeat"]);
    lab.advance_to(lab.lease_end(session).await).await;
    assert_eq!(lab.commit(vec![lab.decided("ana", &Command::Settle).await]).await, "a");
    lab.finish().await;
}

#[tokio::test]
async fn a_heartbeat_that_would_change_the_activity_is_left_to_the_aggregate() {
    let lab = Lab::start().await;
    let session = lab.open("ana").await;
    let ana = lab.user("ana").await;
    let idle = Beat { active: false, idle_ms: 400_000, ..beat(session, ana, Duration::ZERO) };
    assert_eq!(lab.beat(vec![idle.clone()]).await, "c");
    let decided = lab.decided("ana", &Command::Heartbeat { session, idle_ms: 400_000 }).await;
    assert_eq!(lab.commit(vec![decided]).await, "a");
    assert_eq!(lab.names_of("ana").await, ["session_opened", "heartbeat", "activity_changed"]);
    assert_eq!(lab.beat(vec![idle]).await, "a");
    assert_eq!(lab.beat(vec![beat(session, ana, Duration::ZERO)]).await, "c");
    lab.finish().await;
}

#[tokio::test]
async fn the_answer_to_the_largest_batch_is_smaller_than_8_kb() {
    let lab = Lab::start().await;
    let ana = lab.user("ana").await;
    let beats = (0..BEATS_MAX).map(|_| beat(Uuid::now_v7(), ana, Duration::ZERO)).collect();
    let mut commands = Vec::new();
    for _ in 0..COMMANDS_MAX {
        let mut command = lab.decided("ana", &Command::Settle).await;
        command.user_no = UserNo(command.user_no.0 + commands.len() as i64);
        commands.push(command);
    }
    let answer = lab.append(&Batch { beats, commands, ..Batch::default() }).await;
    assert_eq!(answer.verdicts.len(), BEATS_MAX + COMMANDS_MAX);
    // As text, which is longer than what is sent.
    let row: i64 = lab.number("select max(octet_length(b::text))::bigint + 20 from batch b").await;
    assert!(row < 8_192, "{row} bytes");
    lab.finish().await;
}

#[tokio::test]
async fn the_same_guards_key_again_is_known_also_to_another_node_at_the_same_time() {
    let lab = Lab::start().await;
    lab.open("ana").await;
    let keyed = async || {
        let decided = lab.decided("ana", &guard()).await;
        projections::batch::Decided { key: Some("once".to_owned()), ..decided }
    };
    let (first, second) = (keyed().await, keyed().await);
    assert_eq!(lab.commit(vec![first]).await, "a");
    assert_eq!(lab.commit(vec![second]).await, "c", "overtaken: decided again");
    assert_eq!(lab.commit(vec![keyed().await]).await, "k");
    assert_eq!(lab.names_of("ana").await, ["session_opened", "action_allowed"]);
    lab.finish().await;
}

#[tokio::test]
async fn nothing_in_the_schema_sends_a_notification() {
    let lab = Lab::start().await;
    // It would take a lock of the whole cluster at each commit.
    let notifies = "select count(*) from pg_proc where prosrc ~* '\\mnotify\\M|pg_notify'
        and pronamespace = 'rollcall'::regnamespace";
    assert_eq!(lab.number(notifies).await, 0);
    lab.finish().await;
}

#[tokio::test]
async fn what_was_active_before_a_time_out_stays_known_after_an_idle_heartbeat() {
    let lab = Lab::start().await;
    lab.open("ana").await;
    lab.advance(10.0).await;
    let (session, ana) = (lab.open("ana").await, lab.user("ana").await);
    let first = lab.log("ana").await[0].occurred_at + crate::traps_lab::LEASE;
    lab.advance(50.0).await;
    assert_eq!(lab.beat(vec![beat(session, ana, Duration::ZERO)]).await, "a");
    lab.advance_to(first).await;
    // One command: the other session's time-out, an idle heartbeat, and what that changes.
    let command = Command::Heartbeat { session, idle_ms: 4_000_000 };
    assert_eq!(lab.commit(vec![lab.decided("ana", &command).await]).await, "a");
    let names = lab.names_of("ana").await;
    assert_eq!(names[3..], ["session_expired", "heartbeat", "activity_changed"]);
    let beaten = lab.log("ana").await[2].occurred_at;
    assert_eq!(lab.load("ana").await.state.last_activity, Some(beaten));
    lab.finish().await;
}
