//! Several nodes on one database: one that stops in the middle, one that dies, all of them away.

use std::time::{Duration, Instant};

use api::auth::Role;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use tests::cluster::{self, TestDatabase};
use tests::process::api::Api;
use tests::process::audit::Audit;
use tests::process::load::Load;
use tests::process::proxy::{Fault, Proxy};
use tests::process::scratch::Scratch;
use tests::process::wait::{pass, until};
use tests::process::{Serve, Server};
use tokio::sync::watch;
use uuid::Uuid;

use super::answers::socket_of;

/// How long a writer that has stopped may hold the others up.
const HELD_UP_MAX: Duration = Duration::from_secs(12);
/// For what holds on every node within a second.
const EVERYWHERE_MAX: Duration = Duration::from_secs(1);
const PROGRESS_MAX: Duration = Duration::from_secs(45);
/// An outage of all nodes that is longer than this is recorded.
const OUTAGE: Duration = Duration::from_secs(5);
const LEASE: TimeDelta = TimeDelta::milliseconds(7_000);
/// A time-out is recorded within this of its deadline.
const RECORDED_WITHIN: TimeDelta = TimeDelta::seconds(2);

/// Two nodes' common ground.
struct Ground {
    scratch: Scratch,
    database: TestDatabase,
    audit: Audit,
}

impl Ground {
    async fn new() -> Self {
        let database = cluster::empty_database().await;
        let audit = Audit::connect(&database.url).await;
        Self { scratch: Scratch::new(), database, audit }
    }

    /// A node with short leases.
    fn node(&self, name: &str, url: &str) -> Serve {
        let serve = Serve::new(&self.scratch.join(name)).database(url);
        serve.args(["--heartbeat-ms", "1000", "--lease-ms", "7000"])
    }

    async fn end<const N: usize>(self, servers: [Server; N]) {
        for server in servers {
            assert_eq!(server.stop().await.code(), Some(0));
        }
        self.audit.pool().close().await;
        self.database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_the_append_lock_is_ended_and_writes_go_on_within_12_seconds() {
    let ground = Ground::new().await;
    let server = ground.node("a", &ground.database.url).start().await;
    let load = Load::start(&Api::at(&server, "planner", Role::Service), "h", 8);
    load.progress(50, PROGRESS_MAX).await;
    // As a node does that has stopped for good while it held the lock.
    let mut holder = ground.audit.pool().begin().await.unwrap();
    let lock = "select pg_advisory_xact_lock(append_lock_key())";
    sqlx::query(lock).execute(&mut *holder).await.unwrap();
    let held = Instant::now();
    load.progress(50, HELD_UP_MAX).await;
    let held_up = held.elapsed();
    assert!(held_up < HELD_UP_MAX, "{held_up:?}");
    assert!(server.said.find("ended its holder").is_some(), "{}", server.said.tail());
    let ledger = load.stop().await;
    ground.audit.holds(&ledger).await;
    assert_eq!(ground.audit.count("session_expired").await, 0, "our outage is nobody's time-out");
    println!("writes went on after {held_up:?}");
    drop(holder);
    ground.end([server]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stopped_in_the_middle_of_an_append_holds_the_others_up_for_at_most_12_seconds() {
    let ground = Ground::new().await;
    let proxy = Proxy::start(socket_of(&ground.database.url)).await;
    let a = ground.node("a", &proxy.url(&ground.database.name)).start().await;
    let b = ground.node("b", &ground.database.url).start().await;
    let of_a = Load::start(&Api::at(&a, "planner", Role::Service), "a", 8);
    let of_b = Load::start(&Api::at(&b, "planner", Role::Service), "b", 8);
    of_a.progress(50, PROGRESS_MAX).await;
    of_b.progress(50, PROGRESS_MAX).await;

    // Its backend has carried the append out, and waits for the message that commits it.
    proxy.plan(Fault::Held);
    until("a is in the middle", PROGRESS_MAX, async || (proxy.happened() == 1).then_some(())).await;
    a.signal(Signal::STOP);
    let stopped = Instant::now();
    of_b.progress(100, HELD_UP_MAX).await;
    let in_the_middle = stopped.elapsed();
    assert!(in_the_middle < HELD_UP_MAX, "{in_the_middle:?}");

    a.signal(Signal::CONT);
    of_a.progress(50, PROGRESS_MAX).await;
    a.signal(Signal::STOP);
    let stopped = Instant::now();
    of_b.progress(100, HELD_UP_MAX).await;
    let anywhere = stopped.elapsed();
    a.signal(Signal::CONT);
    of_a.progress(50, PROGRESS_MAX).await;

    let mut ledger = of_a.stop().await;
    ledger.add(of_b.stop().await);
    ground.audit.holds(&ledger).await;
    println!("stopped in the middle: {in_the_middle:?}; anywhere: {anywhere:?}");
    ground.end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_nodes_is_killed_and_the_other_goes_on_as_if_nothing_had_been() {
    let ground = Ground::new().await;
    let url = &ground.database.url;
    // At once: both find an empty database.
    let (a, b) = (ground.node("a", url), ground.node("b", url));
    let (a, b) = tokio::join!(a.start(), b.start());
    let place = watch::Sender::new(a.address);
    let api = Api::following(&place.subscribe(), "planner", Role::Service);
    let of_a = Load::start(&api, "a", 8);
    let of_b = Load::start(&Api::at(&b, "planner", Role::Service), "b", 8);
    of_a.progress(50, PROGRESS_MAX).await;

    let (ana, root) = (Api::at(&a, "ana", Role::User), Api::at(&a, "root", Role::Admin));
    let (ana_at_b, root_at_b) = (ana.moved_to(&b), root.moved_to(&b));
    let session = Uuid::now_v7();
    ana.login("ana", session).await.unwrap().ok();
    assert_eq!(ana_at_b.get("/v1/users/ana/status").await.status, 200);
    let policy = json!({ "away_after_ms": 123_456 });
    root.send(Method::PUT, "/v1/policy", Some(policy)).await.unwrap().ok();
    let path = format!("/v1/sessions/{session}?revoke_token=true");
    let changed = Instant::now();
    ana.send(Method::DELETE, &path, None).await.unwrap().ok();
    let revoked = Instant::now();
    a.kill().await;
    place.send_replace(b.address);
    until("the policy holds on b", EVERYWHERE_MAX, async || {
        let policy = root_at_b.get("/v1/policy").await.ok();
        (policy["away_after_ms"] == 123_456).then_some(())
    })
    .await;
    let policy_took = changed.elapsed();
    let left = EVERYWHERE_MAX.saturating_sub(revoked.elapsed());
    until("the token is refused on b", left, async || {
        let answer = ana_at_b.get("/v1/users/ana/status").await;
        (answer.status == 401 && answer.code() == "token_revoked").then_some(())
    })
    .await;
    println!("on b: policy after {policy_took:?}, revocation after {:?}", revoked.elapsed());

    // Longer than an outage would have to be, and than a lease.
    pass(OUTAGE + Duration::from_secs(3)).await;
    of_a.progress(50, PROGRESS_MAX).await;
    let mut ledger = of_a.stop().await;
    let of_b = of_b.stop().await;
    assert_eq!(of_b.refused, 0, "clients of b have noticed nothing");
    ledger.add(of_b);
    ground.audit.holds(&ledger).await;
    assert_eq!(ground.audit.count("service_resumed").await, 0, "somebody listened all the time");
    assert_eq!(ground.audit.count("session_expired").await, 0);
    ground.end([b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_that_was_stopped_for_longer_than_a_lease_logs_nobody_out() {
    let ground = Ground::new().await;
    let server = ground.node("a", &ground.database.url).start().await;
    let load = Load::start(&Api::at(&server, "planner", Role::Service), "l", 4);
    load.progress(50, PROGRESS_MAX).await;
    server.signal(Signal::STOP);
    until("longer than a lease", PROGRESS_MAX, async || {
        (ground.audit.silent_for().await > LEASE.as_seconds_f64() + 1.0).then_some(())
    })
    .await;
    server.signal(Signal::CONT);
    load.progress(50, PROGRESS_MAX).await;
    let ledger = load.stop().await;
    ground.audit.holds(&ledger).await;
    assert_eq!(ground.audit.count("service_resumed").await, 1);
    assert_eq!(ground.audit.count("session_expired").await, 0);
    ground.end([server]).await;
}

/// When a session's lease is over, by what the log says.
async fn deadline(audit: &Audit, session: Uuid) -> DateTime<Utc> {
    let query = "select last_seen + $2 * interval '1 ms'
                      + coalesce((select sum(to_at - from_at) from silence
                                   where from_at > l.last_seen), interval '0')
                 from live_session l where session_id = $1";
    sqlx::query_scalar(query)
        .bind(session)
        .bind(LEASE.num_milliseconds() as f64)
        .fetch_one(audit.pool())
        .await
        .unwrap()
}

/// When a session expired, and when that was recorded.
async fn expiry(audit: &Audit, session: Uuid) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let query = "select occurred_at, recorded_at from event
                 where type = 'session_expired' and session_id = $1";
    sqlx::query_as(query).bind(session).fetch_optional(audit.pool()).await.unwrap()
}

/// Both nodes show the user online until the deadline; then the end is recorded, in time.
async fn expires(
    ground: &Ground,
    nodes: &[Api],
    stays: Uuid,
    (user, session): (&str, Uuid),
    deadline: DateTime<Utc>,
) {
    let what = "the session expires";
    let (at, recorded) = until(what, PROGRESS_MAX, async || {
        for node in nodes {
            let status = node.status(user).await;
            let clock = sqlx::query_scalar("select clock_timestamp()");
            let now: DateTime<Utc> = clock.fetch_one(ground.audit.pool()).await.unwrap();
            assert!(status == "online" || now >= deadline, "{status} at {now}, not {deadline}");
            node.beat(stays).await.unwrap().ok();
        }
        expiry(&ground.audit, session).await
    })
    .await;
    assert_eq!(at, deadline, "it happened at its deadline");
    let late = recorded - deadline;
    assert!((TimeDelta::zero()..RECORDED_WITHIN).contains(&late), "recorded {late} late");
    println!("{user} expired, recorded {} ms after the deadline", late.num_milliseconds());
    for node in nodes {
        let answer = node.beat(session).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.code()), (410, "session_closed"));
        assert_eq!(answer.body["reason"], "lost_carrier");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_all_nodes_is_recorded_once_and_is_nobodys_time_out() {
    let ground = Ground::new().await;
    let (serve_a, serve_b) =
        (ground.node("a", &ground.database.url), ground.node("b", &ground.database.url));
    let (a, b) = (serve_a.start().await, serve_b.start().await);
    let (stays, leaves, late) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let backend = Api::at(&a, "planner", Role::Service);
    backend.login("stays", stays).await.unwrap().ok();
    backend.login("leaves", leaves).await.unwrap().ok();
    a.kill().await;
    b.kill().await;
    // Nearly as long as the lease: without the outage's being recorded both would be over.
    until("an outage", PROGRESS_MAX, async || {
        (ground.audit.silent_for().await > OUTAGE.as_secs_f64() + 1.5).then_some(())
    })
    .await;

    let (a, b) = tokio::join!(serve_a.start(), serve_b.start());
    let nodes = [&a, &b].map(|node| Api::at(node, "planner", Role::Service));
    nodes[1].beat(stays).await.unwrap().ok();
    nodes[0].login("late", late).await.unwrap().ok();
    assert_eq!(ground.audit.count("service_resumed").await, 1);
    assert_eq!(ground.audit.count("session_expired").await, 0);
    let gap = "select extract(epoch from to_at - from_at)::float8 from silence";
    let gap: f64 = sqlx::query_scalar(gap).fetch_one(ground.audit.pool()).await.unwrap();
    assert!(gap > OUTAGE.as_secs_f64() + 1.5, "{gap} s");

    // Both first: waiting for the one, the other may be over.
    let leaves_at = deadline(&ground.audit, leaves).await;
    let late_at = deadline(&ground.audit, late).await;
    expires(&ground, &nodes, stays, ("leaves", leaves), leaves_at).await;
    expires(&ground, &nodes, stays, ("late", late), late_at).await;
    for node in &nodes {
        assert_eq!(node.status("stays").await, "online");
        node.beat(stays).await.unwrap().ok();
    }
    assert_eq!(ground.audit.count("session_expired").await, 2);
    assert_eq!(ground.audit.count("service_resumed").await, 1);
    tests::invariants::check(ground.audit.pool(), &[]).await;
    ground.end([a, b]).await;
}
