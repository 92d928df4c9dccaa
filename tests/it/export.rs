//! `rollcall export`: the log in a file, beside a running server and without one.

use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;

use chrono::TimeDelta;
use futures::future::join_all;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use tests::World;
use tests::process::scratch::Scratch;
use tests::process::{Serve, run};
use tokio::process::Command;
use uuid::Uuid;

/// Imported sessions of fifty people, an hour after another: two transitions each.
async fn imported(world: &World, sessions: u128) {
    let begin: domain::Timestamp = "2026-01-01T08:00:00Z".parse().unwrap();
    let lines: Vec<String> = (0..sessions)
        .flat_map(|number| {
            let opened = begin + TimeDelta::hours((number / 50) as i64);
            let line = move |name: &str, at: domain::Timestamp| {
                json!({ "type": name, "user_id": format!("u{}", number % 50),
                    "occurred_at": at, "session_id": Uuid::from_u128(number + 1) })
                .to_string()
            };
            let closed = opened + TimeDelta::minutes(59);
            [line("session_opened", opened), line("session_closed", closed)]
        })
        .collect();
    let admin = world.admin();
    let report = admin.post_raw("/v1/import", "application/x-ndjson", lines.join("\n")).await;
    assert_eq!(report.expect(200)["imported"], lines.len());
}

#[tokio::test]
async fn every_form_of_a_long_log_is_whole_beside_a_running_server() {
    let world = World::start().await;
    imported(&world, 6_000).await;
    let dir = Scratch::new();
    let url = &world.database.url;
    let mut positions: Vec<i64> = Vec::new();
    for form in ["ndjson", "csv", "cloudevents", "parquet"] {
        let file = dir.join(form);
        let name = file.to_str().unwrap();
        let ran = run(["export", "--database-url", url, "--format", form, "--output", name]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let bytes = std::fs::read(&file).unwrap();
        let found: Vec<i64> = match form {
            "ndjson" => {
                let text = String::from_utf8(bytes).unwrap();
                let events = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
                events.map(|event| event["position"].as_i64().unwrap()).collect()
            }
            "csv" => {
                let mut reader = csv::Reader::from_reader(&*bytes);
                reader.records().map(|row| row.unwrap()[0].parse().unwrap()).collect()
            }
            "cloudevents" => {
                let events: Vec<Value> = serde_json::from_slice(&bytes).unwrap();
                events.iter().map(|event| event["data"]["position"].as_i64().unwrap()).collect()
            }
            _ => {
                let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
                let rows = reader.get_row_iter(None).unwrap();
                rows.map(|row| row.unwrap().get_long(0).unwrap()).collect()
            }
        };
        assert!(found.len() >= 12_000, "{form}: {}", found.len());
        assert!(found.is_sorted_by(|one, other| one < other), "{form}");
        if positions.is_empty() {
            positions = found;
        } else {
            assert_eq!(found, positions, "{form}");
        }
    }
    let left = std::fs::read_dir(dir.join("")).unwrap().count();
    assert_eq!(left, 4, "nothing but the four files");
    let all: i64 = sqlx::query_scalar("select count(*) from event where class = 'T'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(positions.len() as i64, all);
    world.finish().await;
}

#[tokio::test]
async fn what_is_exported_can_be_chosen() {
    let world = World::start().await;
    imported(&world, 3).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    ana.beat(&session).await.expect(200);
    let url = &world.database.url;
    let lines = |out: String| -> Vec<Value> {
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let about = lines(run(["export", "--database-url", url, "--users", "u1,ana"]).await.ok());
    let names: Vec<&str> = about.iter().map(|e| e["user_id"].as_str().unwrap()).collect();
    assert_eq!(names, ["u1", "u1", "ana"]);
    let old = ["export", "--database-url", url, "--to", "2026-01-01T08:30:00Z"];
    assert_eq!(lines(run(old).await.ok()).len(), 3);
    let beats = lines(run(["export", "--database-url", url, "--types", "heartbeat"]).await.ok());
    assert_eq!(beats.len(), 1);
    assert_eq!(beats[0]["type"], "heartbeat");
    let with = lines(run(["export", "--database-url", url, "--heartbeats"]).await.ok()).len();
    let without = lines(run(["export", "--database-url", url]).await.ok()).len();
    assert_eq!(with, without + 1);
    assert_eq!(run(["export", "--database-url", url, "--types", "claimed"]).await.code, Some(2));
    let nowhere = run(["export", "--database-url", url, "--output", "/nowhere/at/all"]).await;
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.err.contains("/nowhere/at/all"), "{}", nowhere.err);
    world.finish().await;
}

#[tokio::test]
async fn a_pipe_is_written_to_and_a_link_stays_a_link() {
    let world = World::start().await;
    imported(&world, 3).await;
    let dir = Scratch::new();
    let url = &world.database.url;
    let export = async |name: &Path| {
        run(["export", "--database-url", url, "-o", name.to_str().unwrap()]).await
    };
    let [pipe, file, link, nowhere] =
        ["pipe", "file", "link", "nowhere"].map(|name| dir.join(name));
    let all = run(["export", "--database-url", url]).await.ok();

    let mkfifo = Command::new("mkfifo").arg(&pipe).status().await.unwrap();
    assert!(mkfifo.success());
    let (ran, read) = tokio::join!(export(&pipe), tokio::fs::read_to_string(&pipe));
    assert_eq!((ran.code, read.unwrap()), (Some(0), all.clone()), "{}", ran.err);
    assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());

    std::fs::write(&file, "what was before").unwrap();
    symlink("file", &link).unwrap();
    export(&link).await.ok();
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), all);

    symlink("gone", &nowhere).unwrap();
    let refused = export(&nowhere).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("nowhere"), "{}", refused.err);
    assert!(nowhere.is_symlink());
    world.finish().await;
}

#[tokio::test]
async fn exports_to_one_name_at_one_time_each_write_it_whole() {
    let world = World::start().await;
    imported(&world, 3_000).await;
    let dir = Scratch::new();
    let file = dir.join("log.ndjson");
    let name = file.to_str().unwrap();
    let url = &world.database.url;
    let export = || run(["export", "--database-url", url, "--output", name]);
    let ran = join_all((0..4).map(|_| export())).await;
    assert!(ran.iter().all(|ran| ran.code == Some(0)), "{ran:?}");
    let lines = std::fs::read_to_string(&file).unwrap().lines().count();
    assert!(lines >= 6_000, "{lines}");
    assert_eq!(std::fs::read_dir(dir.join("")).unwrap().count(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_private_database_is_read_with_its_server_and_exported_without() {
    let scratch = Scratch::new();
    let data_dir = scratch.join("data");
    let dir = data_dir.to_str().unwrap();
    let server = Serve::new(&data_dir).own_key().start().await;
    let url = run(["db-url", "--role", "analyst", "--data-dir", dir]).await.ok();
    let mut analyst = PgConnection::connect(url.trim()).await.unwrap();
    analyst.execute("select * from analytics.user_status").await.unwrap();
    analyst.execute("select * from status_daily").await.unwrap();
    assert!(analyst.execute("select * from rollcall.event").await.is_err());
    analyst.close().await.unwrap();
    let beside = run(["export", "--data-dir", dir]).await.ok();
    assert_eq!(server.stop().await.code(), Some(0));
    let alone = run(["export", "--data-dir", dir]).await.ok();
    assert!(beside.contains("policy_changed"), "{beside}");
    assert!(alone.starts_with(&beside), "{alone}");
}
