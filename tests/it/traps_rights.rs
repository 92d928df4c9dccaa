//! Traps of rights and of names: the log is append-only, and names nobody.

use api::auth::Role;
use serde_json::json;
use sqlx::{Executor, PgConnection};
use tests::World;
use uuid::Uuid;

use crate::traps_lab::{Lab, claim};

/// The SQLSTATE and message with which a statement is refused.
async fn refused(connection: &mut PgConnection, statement: &str) -> (String, String) {
    let error = connection.execute(statement).await.expect_err(statement);
    let error = error.as_database_error().expect(statement);
    (error.code().unwrap_or_default().into_owned(), error.message().to_owned())
}

const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// The log with its leaves.
const LOG: [&str; 5] =
    ["event", "event_t", "event_h", "event_t_0000000000000000", "event_h_0000000000000000"];

#[tokio::test]
async fn the_server_may_not_change_the_log_but_by_append() {
    let lab = Lab::start().await;
    lab.open("ana").await;
    let mut server = lab.server().await;
    let tables = LOG.iter().chain(&[
        "current_status",
        "live_session",
        "ended_session",
        "imported_session",
        "silence",
        "batch",
        "relay",
        "detail",
        "guard_key",
    ]);
    for table in tables {
        for statement in [
            format!("insert into {table} default values"),
            format!("delete from {table}"),
            format!("truncate {table}"),
            format!("drop table {table}"),
            format!("alter table {table} disable trigger all"),
        ] {
            let (code, message) = refused(&mut server, &statement).await;
            assert_eq!(code, INSUFFICIENT_PRIVILEGE, "{statement}: {message}");
        }
    }
    for table in LOG {
        let statement = format!("update {table} set recorded_at = now()");
        let (code, message) = refused(&mut server, &statement).await;
        assert_eq!(code, INSUFFICIENT_PRIVILEGE, "{statement}: {message}");
    }
    for statement in [
        "update current_status set status = 'offline'",
        "update live_session set last_seen = now()",
        "update detail set user_no = 1",
        "update events set payload = '{}'",
        "delete from events",
        "select nextval('log_pos')",
        "select make_leaf('event_t', 0, 1)",
        "create table extra (n integer)",
    ] {
        let (code, message) = refused(&mut server, statement).await;
        assert_eq!(code, INSUFFICIENT_PRIVILEGE, "{statement}: {message}");
    }
    lab.finish().await;
}

#[tokio::test]
async fn not_even_the_owner_changes_an_event_by_mistake() {
    let lab = Lab::start().await;
    let session = lab.open("ana").await;
    let ana = lab.user("ana").await;
    let beats = vec![crate::traps_lab::beat(session, ana, std::time::Duration::ZERO)];
    assert_eq!(lab.beat(beats).await, "a");
    // Also in a leaf that was made later.
    lab.run("select make_leaf('event_t', 16777216 * 5, 16777216 * 6)").await;
    lab.run("select setval('log_pos', 16777216 * 5)").await;
    lab.commit(vec![lab.decided("ana", &claim(domain::Status::Busy)).await]).await;
    let mut owner = lab.database.owner().await.unwrap();
    let made_later = ["event_t_0000000083886080"];
    for table in LOG.iter().chain(&made_later) {
        for statement in [
            format!("update {table} set recorded_at = now()"),
            format!("delete from {table}"),
            format!("truncate {table}"),
        ] {
            let (code, message) = refused(&mut owner, &statement).await;
            assert_eq!(code, INSUFFICIENT_PRIVILEGE, "{statement}");
            assert!(message.contains("append-only"), "{statement}: {message}");
        }
    }
    assert_eq!(lab.number("select count(*) from event").await, 3);
    lab.finish().await;
}

#[tokio::test]
async fn whoever_is_not_the_owner_can_take_no_advisory_lock() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    for call in [
        "pg_advisory_lock(append_lock_key())",
        "pg_advisory_xact_lock(append_lock_key())",
        "pg_try_advisory_lock(append_lock_key())",
        "pg_try_advisory_xact_lock(append_lock_key())",
        "pg_advisory_lock_shared(append_lock_key())",
        "pg_try_advisory_xact_lock_shared(1, 2)",
    ] {
        let (code, _) = refused(&mut server, &format!("select {call}")).await;
        assert_eq!(code, INSUFFICIENT_PRIVILEGE, "{call}");
    }
    let open_to_all = "select count(*) from pg_proc p,
            unnest(array['rollcall_api', 'rollcall_auditor', 'rollcall_analyst']) role
        where proname like 'pg%advisory%' and has_function_privilege(role, p.oid, 'execute')";
    assert_eq!(lab.number(open_to_all).await, 0);
    lab.finish().await;
}

/// Every text that a person or a system gave in `busy` begins with it.
const MARK: &str = "Zebra";

/// Everything that a client may put into words.
async fn busy(world: &World) {
    let name = |what: &str| format!("{MARK}-{what}");
    let ana = world.client(&name("ana"), &[Role::User]);
    let (service, admin) = (
        world.client(&name("backend"), &[Role::Service]),
        world.client(&name("root"), &[Role::Admin]),
    );
    let user = format!("/v1/users/{}", name("ana"));
    let device = json!({ "id": name("device"), "label": name("label"), "kind": "mobile" });
    let session = Uuid::now_v7().to_string();
    let body = json!({ "session_id": session, "device": device });
    ana.post("/v1/sessions", body).await.expect(201);
    ana.beat_idle(&session, 400_000).await.expect(200);
    ana.beat(&session).await.expect(200);
    let body = json!({ "status": "busy", "text": name("text"), "ttl_ms": 60_000 });
    ana.put(&format!("{user}/claims/manual"), body).await.expect(200);
    ana.delete(&format!("{user}/claims/manual")).await.expect(200);
    let body = json!({ "status": "dnd", "reason": name("reason") });
    admin.put(&format!("{user}/claims/admin"), body).await.expect(200);
    admin.delete(&format!("{user}/claims/admin")).await.expect(200);
    let body = json!({ "status": "busy", "text": name("call") });
    service.put(&format!("{user}/claims/system:{}", name("phone")), body).await.expect(200);
    let source = format!("system:{}", name("timer"));
    let body = json!({ "action": name("start"), "require": ["busy"], "key": name("key"),
        "claim": { "source": source, "status": "busy", "expect": "absent" } });
    service.post(&format!("{user}/guard"), body.clone()).await.expect(200);
    service.post(&format!("{user}/guard"), body).await.expect(200);
    let body = json!({ "action": name("stop"), "require": ["away"] });
    service.post(&format!("{user}/guard"), body).await.problem(409, "status_refused");
    admin.put("/v1/policy", json!({ "lease_ms": 130_000 })).await.expect(200);
    admin.delete(&format!("{user}/sessions")).await.expect(200);
    ana.login().await;
    world.advance_s(140).await;
    tests::eventually("it is swept", async || {
        world.count(&name("ana"), "session_expired").await == 1
    })
    .await;
}

#[tokio::test]
async fn the_log_holds_no_outside_name_and_no_free_text() {
    let world = World::start().await;
    busy(&world).await;
    let found: Vec<String> =
        sqlx::query_scalar("select e::text from event e where e::text ilike '%' || $1 || '%'")
            .bind(MARK)
            .fetch_all(&world.pool)
            .await
            .unwrap();
    assert_eq!(found, Vec::<String>::new());
    // What the events are made of, so that nothing slips in unseen.
    let keys: Vec<String> = sqlx::query_scalar(
        "select distinct key from event cross join lateral jsonb_object_keys(data) key
         where user_no is not null order by key",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let known = [
        "active",
        "away_after_ms",
        "code",
        "expires_at",
        "idle_ms",
        "invisible",
        "kind",
        "lease_ms",
        "require",
        "status",
        "while_active",
    ];
    let strange: Vec<_> = keys.iter().filter(|key| !known.contains(&key.as_str())).collect();
    assert!(strange.is_empty(), "{strange:?}");
    // The texts are where they can be erased.
    let details: i64 =
        sqlx::query_scalar("select count(*) from detail where detail::text like '%' || $1 || '%'")
            .bind(MARK)
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert!(details >= 4, "{details}");
    world.finish().await;
}
