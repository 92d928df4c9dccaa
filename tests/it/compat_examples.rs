//! The clients of `tests/examples`, each with its own system's routes alone, at a real node.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tests::{Client, World};
use tokio::process::Command;

/// Longer than any phase of an example may take.
const PHASE_MAX: Duration = Duration::from_mins(1);

async fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").stdout(Stdio::null()).status().await;
    match found {
        Ok(status) => status.success(),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: there is no python3 here to run the examples with");
            false
        }
        Err(error) => panic!("python3: {error}"),
    }
}

async fn run(name: &str, arguments: &[&str]) {
    let script = format!("{}/examples/{name}.py", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("python3");
    // Bytecode would stay behind in the repository.
    command.arg("-B").arg(script).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command.env_remove("http_proxy").env_remove("HTTP_PROXY").env("NO_PROXY", "*");
    let output = tokio::time::timeout(PHASE_MAX, command.output()).await.unwrap().unwrap();
    let phase = arguments.last().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {phase}: {said}");
}

fn token(client: &Client) -> &str {
    client.token.as_deref().unwrap()
}

#[tokio::test]
async fn the_planner_works_unchanged() {
    if !has_python().await {
        return;
    }
    let world = World::start().await;
    let (ana, planner) = (world.user("ana"), world.service());
    let arguments = |phase| [planner.base_url.as_str(), token(&planner), "ana", phase];
    run("planner", &arguments("gone")).await;
    ana.put("/api/status", json!({})).await.expect(200);
    run("planner", &arguments("here")).await;
    assert_eq!(ana.status("ana").await["claims"], json!([]));
    world.advance_s(301).await;
    run("planner", &arguments("gone")).await;
    world.finish().await;
}

#[tokio::test]
async fn the_chat_and_its_administration_work_unchanged() {
    if !has_python().await {
        return;
    }
    let world = World::start().await;
    let (ana, admin) = (world.user("ana"), world.admin());
    let arguments = |phase| [ana.base_url.as_str(), token(&ana), token(&admin), "ana", phase];
    run("chat_admin", &arguments("arrive")).await;
    world.advance_s(121).await;
    run("chat_admin", &arguments("silent")).await;
    run("chat_admin", &arguments("leave")).await;
    world.finish().await;
}

#[tokio::test]
async fn the_polling_hook_works_unchanged() {
    if !has_python().await {
        return;
    }
    let world = World::start().await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    let arguments = |phase| [ana.base_url.as_str(), token(&ana), token(&ben), "ana", phase];
    run("polling", &arguments("here")).await;
    world.advance_s(121).await;
    run("polling", &arguments("idle")).await;
    world.advance_s(301).await;
    run("polling", &arguments("gone")).await;
    world.finish().await;
}

#[tokio::test]
async fn the_websocket_client_works_unchanged() {
    if !has_python().await {
        return;
    }
    let world = World::start().await;
    let (ana, ben, admin) = (world.user("ana"), world.user("ben"), world.admin());
    for user in ["ana", "ben"] {
        let path = format!("/v1/groups/team/members/{user}");
        world.service().put(&path, json!({})).await.expect(200);
    }
    let url = ana.base_url.as_str();
    run("websocket", &[url, token(&ana), token(&ben), token(&admin), "ana", "ben", "all"]).await;
    world.finish().await;
}
