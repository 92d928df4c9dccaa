//! The dashboard for Grafana: its questions are answered, its metrics exist.

use std::collections::BTreeSet;

use serde_json::Value;
use sqlx::Executor;
use tests::{World, fold};

use super::schema::analyst;

const DASHBOARD: &str = include_str!("../../../api/ops/grafana-dashboard.json");

/// What Grafana puts in the place of its macros.
fn filled(sql: &str) -> String {
    sql.replace("$__timeFrom()", "(now() - interval '1 day')")
        .replace("$__timeTo()", "now()")
        .replace("$__interval", "5m")
}

fn targets(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.flat_map(|panel| panel["targets"].as_array().unwrap()).collect()
}

#[tokio::test]
async fn every_question_of_the_dashboard_is_answered_to_the_analyst() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    ana.logout(&session).await.expect(200);
    ana.login().await;
    fold::caught_up(&world.pool).await;
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut analyst = analyst(&world).await;
    let questions = targets(&dashboard);
    let questions: Vec<&str> = questions.iter().filter_map(|t| t["rawSql"].as_str()).collect();
    assert!(questions.len() >= 6);
    for question in questions {
        let rows = analyst.fetch_all(filled(question).as_str()).await;
        let rows = rows.unwrap_or_else(|error| panic!("{question}: {error}"));
        assert!(!rows.is_empty(), "{question}");
    }
    world.finish().await;
}

#[tokio::test]
async fn every_metric_of_the_dashboard_exists() {
    let world = World::start().await;
    world.user("ana").login().await;
    fold::caught_up(&world.pool).await;
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let expressions = targets(&dashboard);
    let expressions = expressions.iter().filter_map(|target| target["expr"].as_str());
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names: BTreeSet<&str> = expressions
        .flat_map(|expression| expression.split(|c| !in_name(c)))
        .filter(|word| word.starts_with("rollcall_"))
        .collect();
    assert!(names.len() >= 8, "{names:?}");
    tests::eventually("they are all there", async || {
        let metrics = world.nobody().get("/metrics").await.text;
        names.iter().all(|name| {
            let line =
                |line: &str| line.strip_prefix(name).is_some_and(|r| r.starts_with(['{', ' ']));
            metrics.lines().any(line)
        })
    })
    .await;
    world.finish().await;
}
