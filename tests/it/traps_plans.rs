//! Traps of speed: plans made while the tables were empty, and updates that touch an index.

use std::time::{Duration, Instant};

use domain::{Command, Presence, SessionId, Status, UserNo};
use projections::batch::{Batch, Beat, Decided};
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

use crate::traps_lab::{Lab, beat, claim, close, open};

/// Users with a session each.
const USERS: i64 = 100_000;

/// Fills the present in bulk, past `append`: 100k logins would take a while.
async fn fill(lab: &Lab) -> Vec<(SessionId, UserNo)> {
    lab.run(&format!(
        "insert into account (user_id) select 'bulk-' || n from generate_series(1, {USERS}) n;
         insert into current_status (user_no, status, since, shown_since, sequence, position,
                changed_at, own_since, last_seen, last_activity, live_sessions, invisible,
                state_version, state)
         select user_no, 'online', now, now, 1, user_no, now, now, now, now, 1, false, 1, '{{}}'
           from account, log_clock() now where user_id like 'bulk-%';
         insert into live_session (session_id, user_no, opened_at, last_seen, check_at,
                opened_position, lease_ms, idle_ms, kind, active)
         select gen_random_uuid(), user_no, since, since, since + interval '120 s', position,
                120000, 0, 'web', true from current_status join account using (user_no)
          where user_id like 'bulk-%';
         select setval('log_pos', (select max(user_no) + 1 from account));"
    ))
    .await;
    let rows: Vec<(SessionId, i64)> = sqlx::query_as(
        "select session_id, user_no from live_session where user_no in
                (select user_no from account where user_id like 'bulk-%')",
    )
    .fetch_all(&lab.pool)
    .await
    .unwrap();
    rows.into_iter().map(|(session, user)| (session, UserNo(user))).collect()
}

/// Rows of the present that this transaction read: by sequential scans, and by indexes.
async fn read(connection: &mut PgConnection) -> (i64, i64) {
    let query = "select sum(seq_scan)::bigint, sum(idx_tup_fetch)::bigint
        from pg_stat_xact_user_tables where relname in ('live_session', 'current_status')";
    sqlx::query_as(query).fetch_one(connection).await.unwrap()
}

/// Appends, and holds it to as many rows as it is about.
async fn append_frugally(connection: &mut PgConnection, batch: &Batch) {
    let mut running = connection.begin().await.unwrap();
    let (scans_before, fetched_before) = read(&mut running).await;
    let answer = batch.send(&mut running, Instant::now()).await.unwrap();
    let (scans, fetched) = read(&mut running).await;
    running.commit().await.unwrap();
    let all = batch.len() as i64;
    assert!(answer.verdicts.bytes().all(|verdict| verdict == b'a'), "{}", answer.verdicts);
    assert_eq!(scans - scans_before, 0, "sequential scans for {all}");
    let fetched = fetched - fetched_before;
    assert!(fetched <= 8 * all + 100, "{fetched} rows fetched for {all}");
}

/// Decided upon the filled present, without asking for it.
fn decide(at: (SessionId, UserNo), number: i64, command: &Command, base: &Presence) -> Decided {
    let policy = domain::Policy::default();
    let silences = domain::Silences::default();
    let now = base.since;
    let mut base = base.clone();
    base.sessions[0].id = at.0;
    let context = domain::Context {
        now,
        taken_at: now,
        policy: &policy,
        silences: &silences,
        actor: Some(at.1),
    };
    let decision = domain::decide::decide(base, command, &context);
    let words = vec![None; decision.events.len()];
    let user_id = format!("bulk-{number}").parse().unwrap();
    let (expected, taken) = (at.1.0, Instant::now());
    let (user_no, detail, key) = (at.1, None, None);
    Decided { user_no, user_id, expected, decision, words, detail, key, taken }
}

fn beats(sessions: &[(SessionId, UserNo)]) -> Batch {
    let beats = sessions.iter().map(|(s, u)| beat(*s, *u, Duration::ZERO)).collect::<Vec<Beat>>();
    Batch { beats, ..Batch::default() }
}

#[tokio::test]
async fn no_plan_made_on_empty_tables_scans_them_once_they_are_full() {
    let lab = Lab::start().await;
    // Enough calls on the empty tables for every plan that a connection keeps.
    let mut connection = lab.server().await;
    for number in 0..8 {
        let user_id = format!("early-{number}");
        let session = Uuid::now_v7();
        for command in [open(session), claim(Status::Busy), close(session)] {
            let batch = Batch {
                beats: vec![beat(session, UserNo(1), Duration::ZERO)],
                rechecks: vec![session],
                commands: vec![lab.decided(&user_id, &command).await],
                ..Batch::default()
            };
            batch.send(&mut connection, Instant::now()).await.unwrap();
        }
    }
    let sessions = fill(&lab).await;
    connection.execute("select 1").await.unwrap();
    append_frugally(&mut connection, &beats(&sessions[..50])).await;
    append_frugally(&mut connection, &beats(&sessions[..5_000])).await;
    let rechecks = sessions[..5_000].iter().map(|(session, _)| *session).collect();
    append_frugally(&mut connection, &Batch { rechecks, ..Batch::default() }).await;
    let base = lab.load("bulk-1").await.state;
    for (from, count) in [(10_000, 50), (20_000, 1_000)] {
        for command in [0, 1, 2] {
            let at = from + command * count;
            let decided = |index: usize| {
                let (session, user) = sessions[index];
                let command = match command {
                    0 => open(Uuid::now_v7()),
                    1 => claim(Status::Busy),
                    _ => close(session),
                };
                let mut decided = decide((session, user), index as i64, &command, &base);
                decided.words = vec![Some(1); decided.words.len()];
                decided
            };
            let commands = (at..at + count).map(decided).collect();
            append_frugally(&mut connection, &Batch { commands, ..Batch::default() }).await;
        }
    }
    lab.remove().await;
}

/// Updates of a table so far, and those of them that touched no index.
async fn updates(connection: &mut PgConnection, table: &str) -> (i64, i64) {
    let query = "select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables where relname = $1";
    sqlx::query_as(query).bind(table).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn nothing_indexed_changes_on_a_heartbeat() {
    const SESSIONS: i64 = 400;
    const ROUNDS: i64 = 6;
    let lab = Lab::start().await;
    let mut connection = lab.server().await;
    let mut logins = Vec::new();
    for number in 0..SESSIONS {
        logins.push(lab.decided(&format!("user-{number}"), &open(Uuid::now_v7())).await);
    }
    lab.commit(logins).await;
    let rows: Vec<(SessionId, i64)> =
        sqlx::query_as("select session_id, user_no from live_session")
            .fetch_all(&lab.pool)
            .await
            .unwrap();
    let sessions: Vec<_> = rows.into_iter().map(|(s, user)| (s, UserNo(user))).collect();
    let (mut all, mut hot) = (0, 0);
    for _ in 0..ROUNDS {
        let mut running = connection.begin().await.unwrap();
        let before = updates(&mut running, "live_session").await;
        beats(&sessions).send(&mut running, Instant::now()).await.unwrap();
        let after = updates(&mut running, "live_session").await;
        let others = updates(&mut running, "current_status").await;
        assert_eq!(others, (0, 0), "a heartbeat is no transition");
        running.commit().await.unwrap();
        (all, hot) = (all + after.0 - before.0, hot + after.1 - before.1);
        // Else a page has to be tidied by its next reader, and that waits for what other tests
        // write into other databases of this cluster.
        lab.run("vacuum live_session").await;
    }
    assert_eq!(all, SESSIONS * ROUNDS);
    assert_eq!(hot, all, "updates that stayed on their page");
    lab.finish().await;
}
