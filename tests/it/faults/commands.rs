//! The other commands: before there is a server, beside one, and after it.

use std::path::Path;

use api::auth::Role;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tests::cluster;
use tests::process::api::Api;
use tests::process::scratch::Scratch;
use tests::process::{Ran, Serve, postmaster_of, rollcall, run};
use uuid::Uuid;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file of that user's history.
fn history(scratch: &Scratch, user: &str) -> String {
    let session = Uuid::now_v7();
    let line = |event: &str, at: &str| {
        let mut line = json!({ "type": event, "user_id": user, "occurred_at": at });
        line["session_id"] = json!(session);
        line
    };
    let lines = [
        line("session_opened", "2020-01-01T08:00:00Z"),
        line("session_closed", "2020-01-01T17:00:00Z"),
    ];
    let path = scratch.join(&format!("{user}.ndjson"));
    std::fs::write(&path, lines.map(|line| format!("{line}\n")).concat()).unwrap();
    text(&path).to_owned()
}

fn one_line(ran: &Ran) -> &str {
    assert_eq!((ran.code, ran.err.lines().count()), (Some(1), 1), "{}", ran.err);
    assert!(ran.err.starts_with("rollcall: "), "{}", ran.err);
    ran.err.trim()
}

#[tokio::test(flavor = "multi_thread")]
async fn token_db_url_and_import_work_beside_a_server_and_without_one() {
    let scratch = Scratch::new();
    let data_dir = scratch.join("data");
    let dir = text(&data_dir);
    let url = async || run(["db-url", "--data-dir", dir]).await;
    let import = async |user: &str| {
        let ran = run(["import", &history(&scratch, user), "--data-dir", dir]).await;
        assert!(!ran.err.contains("policy changed"), "{}", ran.err);
        let report = ran.ok();
        let report: Value = serde_json::from_str(report.trim()).unwrap();
        assert_eq!((&report["imported"], &report["skipped"]), (&json!(2), &json!(0)), "{report}");
    };

    // Before the first start there is no key and no database, and none is made by asking.
    one_line(&run(["token", "--sub", "ana", "--data-dir", dir]).await);
    let none_yet = url().await;
    assert!(one_line(&none_yet).contains("no database here yet"), "{}", none_yet.err);
    assert!(!data_dir.exists());

    // Beside a server.
    let serve = Serve::new(&data_dir).own_key().args(["--lease-ms", "300000"]);
    let server = serve.start().await;
    run(["token", "--sub", "ana", "--data-dir", dir]).await.ok();
    let beside = url().await.ok();
    import("before-us").await;
    let backend = run(["token", "--sub", "b", "--role", "service", "--data-dir", dir]).await.ok();
    let backend = Api::at(&server, "b", Role::Service).with(backend.trim());
    assert_eq!(backend.status("before-us").await, "offline");
    roles_of_db_url(dir).await;
    assert_eq!(server.stop().await.code(), Some(0));

    // Without one: the same URL, and an import starts PostgreSQL for as long as it takes.
    assert_eq!(url().await.ok(), beside);
    import("also-before-us").await;
    assert_eq!(postmaster_of(&data_dir), None, "PostgreSQL was stopped again");
    let server = serve.start().await;
    let backend = backend.moved_to(&server);
    assert_eq!(backend.status("also-before-us").await, "offline");
    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_the_wrong_place_says_so_and_makes_no_database() {
    let scratch = Scratch::new();
    let data_dir = scratch.join("data");
    let dir = text(&data_dir);
    let table = scratch.join("table.csv");
    std::fs::write(&table, "user,is_online\n").unwrap();
    let table = text(&table);
    let commands: [&[&str]; 5] = [
        &["export"],
        &["rebuild", "status_span"],
        &["compare", table],
        &["what-if", "longer", "--lease-ms", "300000"],
        &["doctor"],
    ];
    let none_yet = async |place: [&str; 2]| {
        for command in commands {
            let ran = Ran::of(rollcall().args(command).args(place)).await;
            assert!(one_line(&ran).contains("no database here yet"), "{command:?}: {}", ran.err);
        }
    };
    none_yet(["--data-dir", dir]).await;
    assert!(!data_dir.exists());
    // History may come before the first server; it is said that there was nothing yet.
    let lines = history(&scratch, "ana");
    let imported = run(["import", &lines, "--data-dir", dir]).await;
    assert!(imported.err.contains(&format!("one is made in {dir}")), "{}", imported.err);
    imported.ok();
    // Nor does a database of somebody else's become one of ours.
    let server = Serve::new(&data_dir).own_key().start().await;
    let url = run(["db-url", "--data-dir", dir]).await.ok();
    let mut owner = PgConnection::connect(url.trim()).await.unwrap();
    sqlx::query("create database foreign_one").execute(&mut owner).await.unwrap();
    let foreign = format!("{}/foreign_one", url.trim().strip_suffix("/rollcall").unwrap());
    none_yet(["--database-url", &foreign]).await;
    assert_eq!(server.stop().await.code(), Some(0));
}

/// Each role's URL has that role's rights.
async fn roles_of_db_url(dir: &str) {
    let url = run(["db-url", "--data-dir", dir, "--role", "analyst"]).await.ok();
    let mut analyst = PgConnection::connect(url.trim()).await.unwrap();
    let users = sqlx::query_scalar::<_, i64>("select count(*) from user_status");
    assert!(users.fetch_one(&mut analyst).await.unwrap() > 0);
    let refused = async |connection: &mut PgConnection, statement: &str| {
        let error = sqlx::query(statement).execute(connection).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{statement}");
    };
    refused(&mut analyst, "select count(*) from rollcall.event").await;
    refused(&mut analyst, "select count(*) from rollcall.detail").await;
    refused(&mut analyst, "select pg_advisory_lock(1)").await;
    let url = run(["db-url", "--data-dir", dir, "--role", "api"]).await.ok();
    let mut api = PgConnection::connect(url.trim()).await.unwrap();
    refused(&mut api, "delete from event").await;
    refused(&mut api, "insert into silence values (1, now(), now())").await;
    refused(&mut api, "update event set user_no = 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_brings_a_database_up_to_date_and_a_server_then_serves_from_it() {
    let scratch = Scratch::new();
    let database = cluster::empty_database().await;
    for _ in 0..2 {
        run(["migrate", "--database-url", &database.url]).await.ok();
    }
    let server = Serve::new(&scratch.join("data")).database(&database.url).start().await;
    let backend = Api::at(&server, "backend", Role::Service);
    backend.login("ana", Uuid::now_v7()).await.unwrap().ok();
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(!scratch.join("data/pg").exists(), "no private PostgreSQL was made");
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_reached_is_one_line() {
    let scratch = Scratch::new();
    let nowhere = format!("postgres://rollcall@{}/x", text(scratch.path()).replace('/', "%2F"));
    let ran = run(["migrate", "--database-url", &nowhere]).await;
    one_line(&ran);
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_prints_the_description_alone() {
    let printed = run(["openapi"]).await.ok();
    let document: Value = serde_json::from_str(&printed).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    for path in ["/v1/sessions", "/v1/sessions/{id}/heartbeat", "/v1/log", "/healthz"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}
