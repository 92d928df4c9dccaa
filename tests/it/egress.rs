//! Egress to NATS, against a real `nats-server` where there is one: in `ROLLCALL_NATS_SERVER`, else
//! in the `PATH`. Built with `--features nats` alone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use api::egress::EgressSettings;
use async_nats::jetstream;
use futures::StreamExt;
use serde_json::{Value, json};
use tests::{Options, World, eventually};

/// A server of this test alone, with a directory of its own.
struct NatsServer {
    child: Child,
    dir: PathBuf,
    url: String,
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _waited = self.child.wait();
        let _removed = std::fs::remove_dir_all(&self.dir);
    }
}

fn binary() -> Option<PathBuf> {
    let named = std::env::var_os("ROLLCALL_NATS_SERVER").map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|dir| dir.join("nats-server"));
    named.into_iter().chain(found).find(|path| path.is_file())
}

async fn nats_server(dir: &Path, port: Option<u16>) -> Option<NatsServer> {
    let Some(binary) = binary() else {
        eprintln!("skipped: there is no nats-server");
        return None;
    };
    std::fs::create_dir_all(dir).unwrap();
    let port = port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
    let child = Command::new(binary)
        .args(["-js", "-a", "127.0.0.1", "-p", &port, "-sd"])
        .arg(dir)
        .arg("--ports_file_dir")
        .arg(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = dir.join(format!("nats-server_{}.ports", child.id()));
    let ports =
        || -> Option<Value> { serde_json::from_str(&std::fs::read_to_string(&file).ok()?).ok() };
    eventually("nats-server listens", async || ports().is_some()).await;
    let url = ports().unwrap()["nats"][0].as_str().unwrap().to_owned();
    Some(NatsServer { child, dir: dir.to_owned(), url })
}

fn scratch() -> PathBuf {
    std::env::temp_dir().join(format!("rollcall-nats-{}", uuid::Uuid::now_v7()))
}

fn options(url: &str) -> Options {
    let egress = EgressSettings {
        url: url.to_owned(),
        stream: "ROLLCALL".to_owned(),
        subject: "rollcall".to_owned(),
    };
    Options { nodes: 2, egress: Some(egress), ..Options::default() }
}

/// Everything in the stream, in its order: id, subject and body.
async fn stored(url: &str) -> Vec<(String, String, Value)> {
    let Ok(client) = async_nats::connect(url).await else { return Vec::new() };
    let context = jetstream::new(client);
    let Ok(mut stream) = context.get_stream("ROLLCALL").await else { return Vec::new() };
    let count = stream.info().await.unwrap().state.messages as usize;
    let config = jetstream::consumer::pull::OrderedConfig::default();
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = consumer.messages().await.unwrap().take(count);
    let read = messages.map(|message| {
        let message = message.unwrap();
        let id = message.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().to_string();
        let body = serde_json::from_slice(&message.payload).unwrap();
        (id, message.subject.to_string(), body)
    });
    read.collect().await
}

async fn churn(world: &World, times: usize) {
    for _ in 0..times {
        let session = world.user("ana").login().await;
        world.user("ana").logout(&session).await.expect(200);
    }
}

#[tokio::test]
async fn every_transition_stands_in_the_stream_once_in_order_as_a_cloud_event() {
    let Some(server) = nats_server(&scratch(), None).await else { return };
    let world = World::with(options(&server.url)).await;
    churn(&world, 20).await;
    eventually("all are there", async || {
        stored(&server.url).await.iter().filter(|(_, _, e)| e["subject"] == "ana").count() == 40
    })
    .await;
    // What is handed on again is dropped by the stream.
    sqlx::query("update egress set position = 0").execute(&world.pool).await.unwrap();
    eventually("it is at the head again", async || {
        let at: i64 =
            sqlx::query_scalar("select position from egress").fetch_one(&world.pool).await.unwrap();
        at >= 40
    })
    .await;
    let all = stored(&server.url).await;
    let logged = world.auditor().get("/v1/log?limit=1000").await.expect(200);
    let logged = logged["items"].as_array().unwrap();
    assert_eq!(all.len(), logged.len());
    for ((id, subject, event), data) in all.iter().zip(logged) {
        assert_eq!(id, &data["position"].to_string());
        assert_eq!(subject, &format!("rollcall.{}", data["type"].as_str().unwrap()));
        assert_eq!((&event["specversion"], &event["id"]), (&json!("1.0"), &json!(id)));
        assert_eq!((&event["time"], &event["data"]), (&data["occurred_at"], data));
    }
    world.finish().await;
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_misses_nothing() {
    let (dir, again) = (scratch(), scratch());
    let Some(server) = nats_server(&dir, None).await else { return };
    let world = World::with(options(&server.url)).await;
    let port = server.url.rsplit(':').next().unwrap().parse().unwrap();
    let url = server.url.clone();
    churn(&world, 5).await;
    eventually("these are there", async || stored(&url).await.len() >= 10).await;
    drop(server);
    churn(&world, 5).await;
    // With nothing of what it had: whoever keeps the stream keeps what was confirmed.
    let _server = nats_server(&again, Some(port)).await.unwrap();
    eventually("what happened meanwhile is there", async || {
        let stored = stored(&url).await;
        let ids: std::collections::HashSet<&String> = stored.iter().map(|(id, ..)| id).collect();
        ids.len() == stored.len() && stored.len() >= 10
    })
    .await;
    world.finish().await;
}
