//! First and second start, as whom, where, and the end.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::auth::Role;
use futures::future::join_all;
use rustix::process::Signal;
use serde_json::json;
use tests::process::api::Api;
use tests::process::audit::Audit;
use tests::process::scratch::{Scratch, is_alive};
use tests::process::wait::until;
use tests::process::{Ran, START_MAX, Serve, binary, postmaster_of, run};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

/// What takes milliseconds, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A token that the data dir's key has signed.
async fn own_token(data_dir: &Path, sub: &str, role: &str) -> String {
    let token =
        run(["token", "--sub", sub, "--role", role, "--ttl", "1h", "--data-dir", text(data_dir)]);
    let token = token.await.ok();
    assert_eq!(token.lines().count(), 1, "a token alone");
    token.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_makes_everything_and_a_second_one_finds_it_again() {
    let scratch = Scratch::new();
    let data_dir = scratch.join("not/there/yet");
    let serve = Serve::new(&data_dir).own_key();

    let first = serve.start().await;
    assert_eq!(first.said.count("making the database"), 1);
    let key = std::fs::metadata(data_dir.join(api::auth::SECRET_FILE)).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600, "the key is for its owner alone");
    let token = own_token(&data_dir, "ana", "user").await;
    let place = watch::Sender::new(first.address);
    let ana = Api::with_token(&place.subscribe(), token);
    let session = Uuid::now_v7();
    ana.login("ana", session).await.unwrap().ok();
    let postmaster = first.postmaster().unwrap();
    assert_eq!(first.stop().await.code(), Some(0));
    assert!(!is_alive(postmaster), "PostgreSQL has stopped with the server");

    let second = serve.start().await;
    place.send_replace(second.address);
    assert_eq!(second.said.count("making the database"), 0);
    assert_eq!(ana.status("ana").await, "online");
    ana.beat(session).await.unwrap().ok();
    assert_eq!(second.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_data_dir_is_refused_and_the_first_goes_on() {
    let scratch = Scratch::new();
    let first = Serve::new(&scratch.join("data")).start().await;
    let second = Ran::of(&mut Serve::new(&scratch.join("data")).command()).await;
    assert_eq!(second.code, Some(1));
    let last = second.err.lines().last().unwrap();
    let expected = "rollcall: another rollcall serve uses this data dir: ";
    assert!(last.starts_with(expected), "{}", second.err);
    assert!(last.contains(&first.pid().as_raw_nonzero().to_string()), "it says who: {last}");
    let backend = Api::at(&first, "backend", Role::Service);
    backend.login("ana", Uuid::now_v7()).await.unwrap().ok();
    assert_eq!(first.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_ends_the_start_with_one_line() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = Serve::new(&scratch.join("data")).args(["--listen", &address]);
    let ran = Ran::of(&mut serve.command()).await;
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert!(ran.err.starts_with(&format!("rollcall: {address}: ")), "{}", ran.err);
    assert!(!scratch.join("data").exists(), "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_ends_with_status_2_and_a_refused_policy_says_why() {
    for wrong in [
        vec![],
        vec!["dance"],
        vec!["serve", "--no-such-flag"],
        vec!["serve", "--listen", "somewhere"],
        vec!["serve", "--lease-ms", "long"],
        vec!["serve", "--queue-max", "0"],
        vec!["token"],
        vec!["token", "--sub", "a b"],
        vec!["token", "--sub", "ana", "--role", "king"],
        vec!["import"],
    ] {
        let ran = Ran::of(tests::process::rollcall().args(&wrong)).await;
        assert_eq!(ran.code, Some(2), "{wrong:?}: {}", ran.err);
        assert!(ran.err.contains("Usage: ") || ran.err.contains("--help"), "{}", ran.err);
    }
    let scratch = Scratch::new();
    let short = Serve::new(&scratch.join("data")).args(["--lease-ms", "30000"]);
    let ran = Ran::of(&mut short.command()).await;
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert!(ran.err.contains("lease_ms 30000 is less than"), "{}", ran.err);
}

/// A copy of the binary that every account can run.
async fn public_copy(scratch: &Scratch) -> PathBuf {
    let copy = scratch.join("rollcall");
    // By another process: while we had it open for writing, a child that another test forks would
    // have it, too, and the kernel refuses to run such a file.
    let mut install = tokio::process::Command::new("install");
    let made = install.args(["-m", "755"]).arg(binary()).arg(&copy).status().await.unwrap();
    assert!(made.success());
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_serves_from_a_directory_of_its_own() {
    if !is_root() {
        return println!("skipped: only root can become somebody else");
    }
    let scratch = Scratch::new();
    let program = public_copy(&scratch).await;
    let data_dir = scratch.join("data");
    std::fs::create_dir(&data_dir).unwrap();
    chown(&data_dir, Some(65_534), Some(65_534)).unwrap();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let serve = Serve::new(&data_dir).program(&program).under(nobody);
    let server = serve.start().await;
    let backend = Api::at(&server, "backend", Role::Service);
    backend.login("ana", Uuid::now_v7()).await.unwrap().ok();
    let postmaster = server.postmaster().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", postmaster.as_raw_nonzero()));
    assert!(status.unwrap().contains("Uid:\t65534\t"), "PostgreSQL runs as the same user");
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(!is_alive(postmaster));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_unprivileged_account_cannot_go_the_database_is_kept_elsewhere() {
    if !is_root() {
        return println!("skipped: only root steps down");
    }
    let scratch = Scratch::new();
    let private = scratch.join("private");
    std::fs::DirBuilder::new().mode(0o700).create(&private).unwrap();
    let serve = Serve::new(&private.join("data"));
    let server = serve.start().await;
    let said = server.said.find("cannot reach the data dir").unwrap();
    assert!(said.contains("/var/lib/rollcall/"), "{said}");
    let backend = Api::at(&server, "backend", Role::Service);
    backend.login("ana", Uuid::now_v7()).await.unwrap().ok();
    assert_eq!(server.stop().await.code(), Some(0));
    let again = serve.start().await;
    assert_eq!(Api::at(&again, "backend", Role::Service).status("ana").await, "online");
    assert_eq!(again.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_before_sigterm_is_answered_and_postgresql_stops_too() {
    const IN_FLIGHT: usize = 24;
    let scratch = Scratch::new();
    let data_dir = scratch.join("data");
    let mut server = Serve::new(&data_dir).start().await;
    let backend = Api::at(&server, "backend", Role::Service);
    backend.login("ana", Uuid::now_v7()).await.unwrap().ok();
    let url = run(["db-url", "--data-dir", text(&data_dir)]).await.ok();
    let audit = Audit::connect(url.trim()).await;
    // Nothing can be appended for a while: everything that is asked for is in flight.
    let mut holder = audit.pool().begin().await.unwrap();
    let lock = "select pg_advisory_xact_lock(append_lock_key())";
    sqlx::query(lock).execute(&mut *holder).await.unwrap();
    let asking = (0..IN_FLIGHT).map(|n| {
        let backend = backend.clone();
        tokio::spawn(async move { backend.login(&format!("u{n}"), Uuid::now_v7()).await })
    });
    let asking: Vec<_> = asking.collect();
    until("everybody has a number, so each command is on its way", SOON, async || {
        let known = "select count(*) from account where user_id ~ '^u[0-9]+$'";
        let known: i64 = sqlx::query_scalar(known).fetch_one(audit.pool()).await.unwrap();
        (known == IN_FLIGHT as i64).then_some(())
    })
    .await;
    let postmaster = server.postmaster().unwrap();
    server.signal(Signal::TERM);
    until("it has heard", SOON, async || server.said.find("stopping: answering")).await;
    holder.rollback().await.unwrap();
    for answer in join_all(asking).await {
        assert_eq!(answer.unwrap().unwrap().status, 201);
    }
    audit.pool().close().await;
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(!is_alive(postmaster), "PostgreSQL has stopped with the server");
    assert_eq!(postmaster_of(&data_dir), None);

    let again = Serve::new(&data_dir).start().await;
    let query = json!({ "users": (0..IN_FLIGHT).map(|n| format!("u{n}")).collect::<Vec<_>>() });
    let found = Api::at(&again, "backend", Role::Service)
        .send(reqwest::Method::POST, "/v1/status/query", Some(query))
        .await;
    let found = found.unwrap().ok();
    assert_eq!(found["items"].as_array().unwrap().len(), IN_FLIGHT);
    assert_eq!(again.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_first_start_leaves_nothing_that_the_next_one_trips_over() {
    for signal in [Signal::TERM, Signal::KILL] {
        let scratch = Scratch::new();
        let serve = Serve::new(&scratch.join("data"));
        let mut interrupted = serve.spawn();
        let begun = "making the database";
        until("it has begun", START_MAX, async || interrupted.said.find(begun)).await;
        interrupted.signal(signal);
        interrupted.ended().await;
        let server = serve.start().await;
        let backend = Api::at(&server, "backend", Role::Service);
        backend.login("ana", Uuid::now_v7()).await.unwrap().ok();
        assert_eq!(server.stop().await.code(), Some(0), "{signal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_started_at_once_in_an_empty_directory_one_serves() {
    let scratch = Scratch::new();
    let serve = Serve::new(&scratch.join("data"));
    let mut both = [serve.spawn(), serve.spawn()];
    let loser = until("one has given up", START_MAX, async || {
        both.iter_mut().position(|server| !server.runs())
    })
    .await;
    let refused = &mut both[loser];
    assert_eq!(refused.ended().await.code(), Some(1));
    until("it says why", SOON, async || refused.said.find("another rollcall serve uses")).await;
    let [first, second] = both;
    let mut winner = if loser == 0 { second } else { first };
    winner.ready().await;
    let backend = Api::at(&winner, "backend", Role::Service);
    backend.login("ana", Uuid::now_v7()).await.unwrap().ok();
    assert_eq!(winner.stop().await.code(), Some(0));
}
