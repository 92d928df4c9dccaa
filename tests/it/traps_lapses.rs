//! Traps of what time does by itself: heartbeats against time-outs, outages, sweeps.

use std::sync::Arc;
use std::time::Duration;

use api::sweeper::{Step, Sweeper};
use chrono::TimeDelta;
use domain::command::{Expiry, SetClaim};
use domain::{Command, Outcome, Policy, Refusal, Source, Status};
use projections::batch::Batch;
use projections::realm::Consistency;
use tests::{World, eventually};
use uuid::Uuid;

use crate::traps_lab::{LEASE, Lab, asked, beat, guard, open, open_polling, receipt};

#[tokio::test]
async fn a_heartbeat_taken_in_before_the_deadline_wins_over_a_time_out_not_yet_recorded() {
    let lab = Lab::start().await;
    let session = lab.open("ana").await;
    let ana = lab.user("ana").await;
    let deadline = lab.lease_end(session).await;
    lab.advance_to(deadline + TimeDelta::seconds(1)).await;
    let expiry = lab.decided("ana", &Command::Settle).await;
    let late = beat(session, ana, Duration::from_secs(4));
    // Both at once, the heartbeat last: it goes first.
    let batch = Batch { beats: vec![late], commands: vec![expiry], ..Batch::default() };
    assert_eq!(lab.append(&batch).await.verdicts, "ac");
    let log = lab.log("ana").await;
    assert_eq!(lab.names_of("ana").await, ["session_opened", "heartbeat"]);
    assert!(log[1].occurred_at < deadline && log[1].recorded_at > deadline);
    assert_eq!(lab.lease_end(session).await, log[1].occurred_at + LEASE);
    lab.finish().await;
}

#[tokio::test]
async fn a_heartbeat_after_the_end_is_recorded_is_gone_however_early_it_was_taken_in() {
    let lab = Lab::with_nodes(1).await;
    let session = lab.open("ana").await;
    let ana = lab.user("ana").await;
    let deadline = lab.lease_end(session).await;
    lab.advance_to(deadline).await;
    receipt(lab.nodes[0].execute(ana, &Command::Settle, asked()).await);
    let early = beat(session, ana, Duration::from_secs(20));
    assert_eq!(lab.nodes[0].beat(early).await.unwrap(), None);
    let command = Command::Heartbeat { session, idle_ms: 0 };
    let outcome = receipt(lab.nodes[0].execute(ana, &command, asked()).await).outcome;
    assert_eq!(outcome, Outcome::Refused(Refusal::SessionClosed));
    assert_eq!(lab.names_of("ana").await, ["session_opened", "session_expired"]);
    lab.finish().await;
}

#[tokio::test]
async fn a_heartbeat_after_the_deadline_revives_nothing_and_the_end_is_at_the_deadline() {
    let lab = Lab::with_nodes(1).await;
    let (plain, idle) = (lab.open("ana").await, lab.open("ben").await);
    let (ana, ben) = (lab.user("ana").await, lab.user("ben").await);
    let deadline = lab.lease_end(plain).await;
    lab.advance_to(lab.lease_end(idle).await + TimeDelta::seconds(1)).await;
    let node = &lab.nodes[0];
    let late = beat(plain, ana, Duration::ZERO);
    assert_eq!(node.beat(late).await.unwrap(), None);
    for (user, session, idle_ms) in [(ana, plain, 0), (ben, idle, 400_000)] {
        let command = Command::Heartbeat { session, idle_ms };
        let outcome = receipt(node.execute(user, &command, asked()).await).outcome;
        assert_eq!(outcome, Outcome::Refused(Refusal::SessionClosed));
    }
    assert_eq!(lab.names_of("ana").await, ["session_opened", "session_expired"]);
    assert_eq!(lab.names_of("ben").await, ["session_opened", "session_expired"]);
    assert_eq!(lab.log("ana").await[1].occurred_at, deadline);
    lab.finish().await;
}

#[tokio::test]
async fn a_client_that_was_cut_off_while_the_log_ran_hears_410_and_why() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    world.advance_s(125).await;
    let gone = ana.beat(&session).await.problem(410, "session_closed");
    eventually("it is swept", async || world.count("ana", "session_expired").await == 1).await;
    assert_eq!(gone["status"], 410);
    assert_eq!(ana.status_word("ana").await, "offline");
    ana.beat(&session).await.problem(410, "session_closed");
    assert_eq!(world.count("ana", "heartbeat").await, 0);
    world.finish().await;
}

#[tokio::test]
async fn an_outage_of_60_s_prolongs_every_lease_by_60_s_once_though_there_are_two_nodes() {
    let lab = Lab::with_nodes(2).await;
    let session = lab.open("ana").await;
    let ana = lab.user("ana").await;
    let before = lab.lease_end(session).await;
    lab.outage(60).await;
    assert_eq!(lab.number("select count(*) from silence").await, 1);
    assert_eq!(lab.number("select count(*) from event where type = 'service_resumed'").await, 1);
    let silent: f64 =
        sqlx::query_scalar("select extract(epoch from to_at - from_at)::float8 * 1e6 from silence")
            .fetch_one(&lab.pool)
            .await
            .unwrap();
    let silent = TimeDelta::microseconds(silent.round() as i64);
    assert!(silent >= TimeDelta::seconds(60) && silent < TimeDelta::seconds(90), "{silent}");
    let deadline = before + silent;
    assert_eq!(lab.lease_end(session).await, deadline);
    lab.advance_to(deadline - TimeDelta::seconds(3)).await;
    for node in &lab.nodes {
        assert_eq!(node.silences().iter().count(), 1);
        receipt(node.execute(ana, &Command::Settle, asked()).await);
        let look = |seen: projections::realm::Seen<'_>| seen.state.status;
        let seen = node.look(&[ana], Consistency::Usual, look).await.unwrap();
        assert_eq!(seen, [Some(Status::Online)]);
    }
    lab.advance_to(deadline).await;
    for node in &lab.nodes {
        receipt(node.execute(ana, &Command::Settle, asked()).await);
    }
    assert_eq!(lab.names_of("ana").await, ["session_opened", "session_expired"]);
    assert_eq!(lab.log("ana").await[1].occurred_at, deadline);
    lab.finish().await;
}

#[tokio::test]
async fn a_pause_of_less_than_5_s_is_no_outage() {
    let lab = Lab::start().await;
    lab.tick().await;
    lab.shift(3.0).await;
    lab.tick().await;
    assert_eq!(lab.number("select count(*) from silence").await, 0);
    lab.finish().await;
}

#[tokio::test]
async fn claims_end_by_the_clock_even_through_an_outage() {
    let lab = Lab::with_nodes(1).await;
    lab.open("ana").await;
    let ana = lab.user("ana").await;
    let ends = lab.now().await + TimeDelta::seconds(30);
    let ends = ends - TimeDelta::nanoseconds(i64::from(ends.timestamp_subsec_nanos() % 1_000));
    let (source, status) = (Source::Manual, Status::Busy);
    let expires = Some(Expiry::At(ends));
    let claim = SetClaim { source, status, while_active: false, expires, text: None };
    let node = &lab.nodes[0];
    receipt(node.execute(ana, &Command::SetClaim(claim), asked()).await);
    lab.outage(60).await;
    receipt(node.execute(ana, &Command::Settle, asked()).await);
    let log = lab.log("ana").await;
    let names: Vec<&str> = log.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["session_opened", "claim_set", "claim_expired"]);
    assert_eq!(log[2].occurred_at, ends);
    assert_eq!(log[2].to_status.as_deref(), Some("online"));
    lab.finish().await;
}

#[tokio::test]
async fn an_interaction_driven_session_turns_away_and_ends_outside_silences() {
    let lab = Lab::with_nodes(2).await;
    let ana = lab.user("ana").await;
    let session = Uuid::now_v7();
    receipt(lab.nodes[0].execute(ana, &open_polling(session), asked()).await);
    lab.outage(60).await;
    lab.advance(30.0).await;
    let command = Command::Heartbeat { session, idle_ms: 0 };
    receipt(lab.nodes[1].execute(ana, &command, asked()).await);
    let touched = lab.log("ana").await[1].occurred_at;
    lab.outage(60).await;
    let column = |name: &str| format!("select lease_end(last_seen, {name}) from live_session");
    let away = lab.instant(&column("away_after_ms")).await;
    let over = lab.instant(&column("lease_ms")).await;
    assert!(away >= touched + TimeDelta::seconds(180), "120 s and the silence");
    assert_eq!(over - away, TimeDelta::seconds(180));
    lab.advance_to(away - TimeDelta::seconds(3)).await;
    receipt(lab.nodes[0].execute(ana, &Command::Settle, asked()).await);
    assert_eq!(lab.names_of("ana").await, ["session_opened", "heartbeat"]);
    lab.advance_to(away).await;
    receipt(lab.nodes[0].execute(ana, &guard(), asked()).await);
    lab.advance_to(over).await;
    receipt(lab.nodes[1].execute(ana, &Command::Settle, asked()).await);
    let log = lab.log("ana").await;
    let names: Vec<&str> = log[2..].iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["activity_changed", "action_refused", "session_expired"]);
    assert_eq!((log[2].occurred_at, log[4].occurred_at), (away, over));
    assert_eq!(log[2].to_status.as_deref(), Some("away"));
    assert_eq!(log[4].reason.as_deref(), Some("idle_timeout"));
    lab.finish().await;
}

#[tokio::test]
async fn two_sweepers_that_sweep_twice_record_each_end_once() {
    let lab = Lab::with_nodes(2).await;
    let mut logins = Vec::new();
    for number in 0..60 {
        logins.push(lab.decided(&format!("user-{number}"), &open(Uuid::now_v7())).await);
    }
    assert_eq!(lab.commit(logins).await, "a".repeat(60));
    lab.advance_to(
        lab.instant("select max(lease_end(last_seen, lease_ms)) from live_session").await,
    )
    .await;
    lab.advance(1.0).await;
    let sweepers: Vec<Sweeper> =
        lab.nodes.iter().map(|node| Sweeper::new(Arc::clone(node))).collect();
    for _ in 0..2 {
        let (one, other) = tokio::join!(sweepers[0].step(), sweepers[1].step());
        assert_eq!((one.unwrap(), other.unwrap()), (Step::Idle, Step::Idle));
    }
    let count = "select count(*) from event where type = 'session_expired'";
    assert_eq!(lab.number(count).await, 60);
    assert_eq!(lab.number("select count(*) from live_session").await, 0);
    lab.finish().await;
}

#[tokio::test]
async fn a_recheck_moves_a_lazy_deadline_on_and_records_nothing() {
    let lab = Lab::with_nodes(1).await;
    let session = lab.open("ana").await;
    let ana = lab.user("ana").await;
    let first = lab.lease_end(session).await;
    lab.advance(100.0).await;
    assert_eq!(lab.beat(vec![beat(session, ana, Duration::ZERO)]).await, "a");
    assert_eq!(lab.instant("select check_at from live_session").await, first, "it is lazy");
    lab.advance_to(first + TimeDelta::seconds(1)).await;
    let head = "select max(position) from event";
    let before = lab.number(head).await;
    assert_eq!(Sweeper::new(Arc::clone(&lab.nodes[0])).step().await.unwrap(), Step::Idle);
    let moved = lab.instant("select check_at from live_session").await;
    assert_eq!(moved, lab.lease_end(session).await);
    assert_eq!(lab.number(head).await, before);
    lab.finish().await;
}

#[tokio::test]
async fn a_node_that_does_not_know_the_heartbeats_of_another_asks_before_it_says_offline() {
    let lab = Lab::with_nodes(2).await;
    let session = lab.open("ana").await;
    let ana = lab.user("ana").await;
    for _ in 0..3 {
        lab.advance(60.0).await;
        let own = beat(session, ana, Duration::ZERO);
        assert!(lab.nodes[0].beat(own).await.unwrap().is_some());
    }
    let look = |seen: projections::realm::Seen<'_>| seen.state.status;
    let seen = lab.nodes[1].look(&[ana], Consistency::Usual, look).await.unwrap();
    assert_eq!(seen, [Some(Status::Online)]);
    // Nor does it record an end that never was.
    receipt(lab.nodes[1].execute(ana, &Command::Settle, asked()).await);
    assert_eq!(lab.names_of("ana").await[1..], ["heartbeat", "heartbeat", "heartbeat"]);
    lab.finish().await;
}

#[tokio::test]
async fn a_lease_that_a_heartbeat_shortens_is_swept_in_time() {
    let mut lab = Lab::start().await;
    let node = lab.join(Policy { heartbeat_ms: 100, ..Policy::default() }, 100).await;
    let session = lab.open("ana").await;
    let ana = lab.user("ana").await;
    let shorter =
        projections::batch::Beat { lease_ms: 10_000, ..beat(session, ana, Duration::ZERO) };
    assert_eq!(lab.beat(vec![shorter]).await, "a");
    let deadline = lab.lease_end(session).await;
    assert_eq!(lab.instant("select check_at from live_session").await, deadline);
    lab.advance_to(deadline + TimeDelta::seconds(1)).await;
    node.tick().await.unwrap(); // Another node moved the time: this one hears of it now.
    Sweeper::new(node).step().await.unwrap();
    let log = lab.log("ana").await;
    assert_eq!((log[2].name.as_str(), log[2].occurred_at), ("session_expired", deadline));
    lab.remove().await;
}
