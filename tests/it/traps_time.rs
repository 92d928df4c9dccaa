//! Traps of time: one clock, the database's, which never runs backwards.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use domain::lapse::lease_end;
use domain::{Command, Outcome, Silence, Silences, Status, Timestamp};
use projections::Asked;
use projections::batch::Batch;
use sqlx::Executor;
use tests::{cluster, eventually, within};

use crate::traps_lab::{LEASE, Lab, asked, beat, claim, close, guard, open, receipt};

#[tokio::test]
async fn now_never_runs_backwards_though_the_servers_clock_does() {
    let lab = Lab::start().await;
    lab.open("ana").await;
    let before = lab.instant("select max(recorded_at) from batch").await;
    lab.shift(-3600.0).await;
    let session = lab.open("ben").await;
    let late = lab.decided_at("ana", &claim(Status::Busy), before).await;
    assert_eq!(lab.commit(vec![late]).await, "a");
    let ben = lab.user("ben").await;
    assert_eq!(lab.beat(vec![beat(session, ben, Duration::ZERO)]).await, "a");
    let backwards = "select count(*) from event a join event b on a.position < b.position
        where a.recorded_at > b.recorded_at";
    assert_eq!(lab.number(backwards).await, 0);
    assert_eq!(lab.instant("select max(recorded_at) from event").await, before);
    // Time stands still until the clock has caught up: whoever logs in meanwhile is here.
    let moments_before = before - TimeDelta::seconds(1);
    assert!(lab.log("ben").await[0].occurred_at > moments_before);
    assert!(lab.lease_end(session).await > moments_before + LEASE);
    lab.finish().await;
}

#[tokio::test]
async fn a_nodes_now_never_runs_backwards_either() {
    let lab = Lab::with_nodes(1).await;
    lab.shift(3.0).await;
    lab.tick().await;
    let before = lab.nodes[0].now();
    lab.shift(-3.0).await;
    lab.tick().await;
    assert!(lab.nodes[0].now() >= before);
    lab.finish().await;
}

#[tokio::test]
async fn a_command_happened_before_it_waited_in_the_node_and_for_the_lock() {
    const AGE: TimeDelta = TimeDelta::seconds(2);
    let lab = Lab::start().await;
    lab.real_clocks().await;
    let session = lab.open("ana").await;
    let (ana, ben) = (lab.user("ana").await, lab.user("ben").await);
    let held = lab.hold().await;
    let mut command = lab.decided("ben", &open(uuid::Uuid::now_v7())).await;
    assert_eq!(command.user_no, ben);
    let mut connection = lab.server().await;
    let sent = lab.now().await;
    command.taken = Instant::now().checked_sub(AGE.to_std().unwrap()).unwrap();
    let batch = Batch {
        beats: vec![beat(session, ana, Duration::ZERO)],
        commands: vec![command],
        ..Batch::default()
    };
    let sending = tokio::spawn(async move { batch.send(&mut connection, Instant::now()).await });
    lab.waiting(1).await;
    let waits = lab.now().await;
    lab.passed(waits + TimeDelta::seconds(1)).await;
    held.release().await;
    assert_eq!(sending.await.unwrap().unwrap().verdicts, "aa");
    let beaten = lab.log("ana").await[1].clone();
    assert!(sent <= beaten.occurred_at && beaten.occurred_at <= waits, "{beaten:?}");
    assert!(beaten.recorded_at - beaten.occurred_at >= TimeDelta::seconds(1));
    let opened = lab.log("ben").await[0].clone();
    assert!(sent - AGE <= opened.occurred_at + TimeDelta::milliseconds(1), "{opened:?}");
    assert!(opened.occurred_at <= waits - AGE, "{opened:?}");
    lab.finish().await;
}

#[tokio::test]
async fn a_retry_does_not_make_a_command_younger() {
    let mut lab = Lab::start().await;
    lab.real_clocks().await;
    let node = lab.join(domain::Policy::default(), 100).await;
    let ana = lab.user("ana").await;
    let held = lab.hold().await;
    let command = open(uuid::Uuid::now_v7());
    let asked_at = lab.now().await;
    let asking = tokio::spawn(async move { node.execute(ana, &command, asked()).await });
    lab.waiting(1).await;
    let waits = lab.now().await;
    lab.passed(waits + TimeDelta::seconds(1)).await;
    // The first call is lost; the node asks again, on another connection.
    let lost = "select count(pg_terminate_backend(pid)) from pg_locks
        where locktype = 'advisory' and not granted
          and database = (select oid from pg_database where datname = current_database())";
    assert_eq!(lab.number(lost).await, 1);
    lab.waiting(0).await;
    lab.waiting(1).await;
    held.release().await;
    receipt(asking.await.unwrap());
    let opened = lab.log("ana").await[0].clone();
    assert!(asked_at <= opened.occurred_at + TimeDelta::milliseconds(1), "{opened:?}");
    // On a busy machine the second call is some time on its way; not the second that it came later.
    let on_its_way = TimeDelta::milliseconds(900);
    assert!(opened.occurred_at <= waits + on_its_way, "{opened:?}");
    assert!(opened.recorded_at - opened.occurred_at >= TimeDelta::seconds(1) - on_its_way);
    lab.finish().await;
}

#[tokio::test]
async fn nothing_happens_before_the_users_previous_transition() {
    let lab = Lab::start().await;
    lab.open("ana").await;
    let mut older = lab.decided("ana", &claim(Status::Busy)).await;
    older.taken = Instant::now().checked_sub(Duration::from_secs(30)).unwrap();
    assert_eq!(lab.commit(vec![older]).await, "a");
    let log = lab.log("ana").await;
    assert_eq!(log[1].occurred_at, log[0].occurred_at);
    assert!(log[1].recorded_at > log[0].recorded_at);
    lab.finish().await;
}

#[tokio::test]
async fn a_late_login_does_not_hide_an_earlier_time_out() {
    let lab = Lab::with_nodes(1).await;
    let phone = lab.open("ana").await;
    let deadline = lab.lease_end(phone).await;
    lab.advance_to(deadline + TimeDelta::seconds(60)).await;
    let ana = lab.user("ana").await;
    let laptop = uuid::Uuid::now_v7();
    receipt(lab.nodes[0].execute(ana, &open(laptop), asked()).await);
    let log = lab.log("ana").await;
    let names: Vec<&str> = log.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["session_opened", "session_expired", "session_opened"]);
    let sequences: Vec<_> = log.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [Some(1), Some(2), Some(3)]);
    let (over, new) = (&log[1], &log[2]);
    assert_eq!((over.session_id, over.occurred_at), (Some(phone), deadline));
    assert_eq!(over.to_status.as_deref(), Some("offline"));
    assert_eq!((over.recorded_at, over.position + 1), (new.recorded_at, new.position));
    assert!(new.occurred_at >= deadline + TimeDelta::seconds(60));
    lab.finish().await;
}

#[tokio::test]
async fn a_decision_that_time_has_overtaken_is_a_conflict() {
    let lab = Lab::start().await;
    let session = lab.open("ana").await;
    let deadline = lab.lease_end(session).await;
    lab.advance_to(deadline - TimeDelta::seconds(60)).await;
    let in_time = lab.decided("ana", &guard()).await;
    assert_eq!(in_time.decision.valid_until, Some(deadline));
    lab.advance_to(deadline).await;
    assert_eq!(lab.commit(vec![in_time]).await, "c");
    // One without events stands on the time just as much.
    let before = deadline - TimeDelta::milliseconds(1);
    let nothing = lab.decided_at("ana", &open(session), before).await;
    assert_eq!(nothing.decision.outcome, Outcome::Opened { existed: true });
    assert_eq!(lab.commit(vec![nothing]).await, "c");
    assert_eq!(lab.names_of("ana").await, ["session_opened"]);
    lab.finish().await;
}

#[tokio::test]
async fn a_guard_that_waits_until_the_lease_is_over_is_decided_again_and_refused() {
    let lab = Lab::with_nodes(1).await;
    let session = lab.open("ana").await;
    let deadline = lab.lease_end(session).await;
    lab.advance_to(deadline - TimeDelta::milliseconds(1800)).await;
    let ana = lab.user("ana").await;
    let held = lab.hold().await;
    let node = std::sync::Arc::clone(&lab.nodes[0]);
    let asking = tokio::spawn(async move { node.execute(ana, &guard(), asked()).await });
    lab.waiting(1).await;
    lab.shift(2.0).await;
    held.release().await;
    let outcome = receipt(asking.await.unwrap()).outcome;
    let status = Status::Offline;
    let verdict = Err(domain::event::GuardRefusal::StatusRefused);
    assert_eq!(outcome, Outcome::Guarded { verdict, status });
    let names = lab.names_of("ana").await;
    assert_eq!(names, ["session_opened", "session_expired", "action_refused"]);
    lab.finish().await;
}

#[tokio::test]
async fn two_nodes_with_clocks_of_their_own_make_one_history() {
    let lab = Lab::with_nodes(2).await;
    let ana = lab.user("ana").await;
    let mut first = lab.now().await;
    for round in 0..12 {
        // Whoever is asked now believes in a time that is up to 5 s off.
        lab.shift(if round % 3 == 1 { -4.5 } else { 4.5 }).await;
        let session = uuid::Uuid::now_v7();
        for (node, command) in [(0, open(session)), (1, guard()), (0, close(session))] {
            receipt(lab.nodes[node].execute(ana, &command, asked()).await);
        }
        first = first.min(lab.now().await);
    }
    let log = lab.log("ana").await;
    assert_eq!(log.len(), 36);
    assert!(log.is_sorted_by_key(|event| event.occurred_at));
    assert!(log.iter().all(|event| event.occurred_at >= first));
    lab.finish().await;
}

#[tokio::test]
async fn what_a_nodes_clock_says_is_stored_nowhere() {
    let lab = Lab::start().await;
    lab.open("ana").await;
    let actions = [claim(Status::Busy), guard(), claim(Status::Dnd), guard()];
    for (command, off) in actions.iter().zip([5, -5, -60, 60]) {
        let before = lab.now().await;
        let off = TimeDelta::seconds(off);
        let decided = lab.decided_at("ana", command, before + off).await;
        assert_eq!(lab.commit(vec![decided]).await, "a");
        let at = lab.log("ana").await.pop().unwrap().occurred_at;
        assert!(before <= at && at <= lab.now().await, "{at}");
    }
    lab.finish().await;
}

#[tokio::test]
async fn a_node_whose_database_is_gone_never_believes_it_is_more_than_5_s_later() {
    let lab = Lab::with_nodes(1).await;
    let session = lab.open("ana").await;
    let node = &lab.nodes[0];
    let ana = lab.user("ana").await;
    assert!(node.reached(lab.log("ana").await[0].position).await);
    let cut = format!("alter database {} with allow_connections false", lab.test.name);
    let elsewhere = sqlx::PgPool::connect(&cluster::url("postgres")).await.unwrap();
    elsewhere.execute(cut.as_str()).await.unwrap();
    let newest = lab.instant("select max(recorded_at) from batch").await;
    let kick = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}'",
        lab.test.name
    );
    elsewhere.execute(kick.as_str()).await.unwrap();
    let stops = newest + TimeDelta::seconds(5);
    let limit = Duration::from_secs(12);
    let mut latest = Timestamp::UNIX_EPOCH;
    within(limit, "the node's time stands still", async || {
        let now = node.now();
        assert!(latest <= now, "backwards");
        // A batch may have been on its way when the database went.
        assert!(now <= stops + TimeDelta::seconds(1), "{now} is too late for {newest}");
        std::mem::replace(&mut latest, now) == now && now >= stops
    })
    .await;
    let open = format!("alter database {} with allow_connections true", lab.test.name);
    elsewhere.execute(open.as_str()).await.unwrap();
    elsewhere.close().await;
    eventually("the node goes on", async || node.now() > latest).await;
    let silences: i64 = lab.number("select count(*) from silence").await;
    assert_eq!(silences, 1);
    let status = node.execute(ana, &Command::Settle, Asked::by(None)).await;
    assert_eq!(receipt(status).sequence, 1, "nobody timed out");
    assert!(lab.lease_end(session).await > lab.log("ana").await[0].occurred_at + LEASE);
    lab.finish().await;
}

/// Silences that do not touch each other, and instants around them.
fn some_silences(random: &mut fastrand::Rng, base: Timestamp) -> Vec<Silence> {
    let mut at = base;
    let some = random.usize(0..8);
    (0..some)
        .map(|_| {
            let from = at + TimeDelta::microseconds(random.i64(1..200_000_000));
            let to = from + TimeDelta::microseconds(random.i64(1..300_000_000));
            at = to;
            Silence { from, to }
        })
        .collect()
}

#[tokio::test]
async fn leases_end_at_the_same_instant_in_sql_and_in_rust() {
    let lab = Lab::start().await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..40 {
        let base = Timestamp::UNIX_EPOCH + TimeDelta::days(20_000 + round);
        let silences = some_silences(&mut random, base);
        let starts: Vec<Timestamp> = (0..100)
            .map(|_| {
                // Also at the very edges.
                let edge = silences.get(random.usize(0..=silences.len()));
                match (edge, random.u8(0..4)) {
                    (Some(edge), 0) => edge.from,
                    (Some(edge), 1) => edge.to,
                    _ => base + TimeDelta::microseconds(random.i64(-100_000_000..2_000_000_000)),
                }
            })
            .collect();
        let lengths: Vec<i32> = starts.iter().map(|_| random.i32(100..400_000)).collect();
        lab.run("truncate silence").await;
        sqlx::query(
            "insert into silence select row_number() over (), f, t from unnest($1, $2) u (f, t)",
        )
        .bind(silences.iter().map(|silence| silence.from).collect::<Vec<_>>())
        .bind(silences.iter().map(|silence| silence.to).collect::<Vec<_>>())
        .execute(&lab.pool)
        .await
        .unwrap();
        let in_sql: Vec<Timestamp> = sqlx::query_scalar(
            "select lease_end(s, l) from unnest($1, $2) with ordinality u (s, l, i) order by i",
        )
        .bind(&starts)
        .bind(&lengths)
        .fetch_all(&lab.pool)
        .await
        .unwrap();
        let silences = Silences::new(silences);
        for ((start, length), in_sql) in starts.into_iter().zip(lengths).zip(in_sql) {
            let in_rust = silences.deadline(start, length.unsigned_abs());
            assert_eq!(in_sql, in_rust, "seed {seed}: {start} + {length} ms, {silences:?}");
        }
    }
    lab.remove().await;
}

#[tokio::test]
async fn a_read_evaluates_the_rules_at_now_however_late_the_sweep() {
    let lab = Lab::with_nodes(2).await;
    let session = lab.open("ana").await;
    let deadline = lab.lease_end(session).await;
    let ana = lab.user("ana").await;
    lab.advance_to(deadline).await;
    for node in &lab.nodes {
        let look = |seen: projections::realm::Seen<'_>| (seen.state.status, seen.state.since);
        let usual = projections::realm::Consistency::Usual;
        let seen = node.look(&[ana], usual, look).await.unwrap();
        assert_eq!(seen, [Some((Status::Offline, deadline))]);
    }
    assert_eq!(lab.names_of("ana").await, ["session_opened"]);
    let stored = lab.load("ana").await.state;
    assert_eq!(lease_end(&stored.sessions[0], &Silences::default()), deadline);
    lab.finish().await;
}
