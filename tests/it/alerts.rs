//! The alerts that are shipped, against the metrics that there are.

use std::collections::BTreeSet;

use projections::health::{Check, Severity};
use tests::{World, eventually};

const RULES: &str = include_str!("../../api/ops/prometheus-rules.yml");

fn expressions() -> Vec<&'static str> {
    let lines = RULES.lines().map(str::trim);
    lines.filter_map(|line| line.strip_prefix("expr: ")).collect()
}

/// Every metric that the alerts name.
fn named() -> BTreeSet<&'static str> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expressions().into_iter().flat_map(move |text| text.split(move |c| !in_name(c)));
    words.filter(|word| word.starts_with("rollcall_")).collect()
}

#[tokio::test]
async fn every_metric_that_an_alert_names_is_exposed() {
    let world = World::start().await;
    world.user("ana").login().await;
    let named = named();
    assert!(named.len() >= 8, "{named:?}");
    eventually("the views are followed", async || {
        world.nobody().get("/metrics").await.text.contains("rollcall_view_waiting_users")
    })
    .await;
    let metrics = world.nobody().get("/metrics").await.text;
    let exposed: BTreeSet<&str> =
        metrics.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let missing: Vec<&str> = named.difference(&exposed).copied().collect();
    assert_eq!(missing, Vec::<&str>::new());
    for check in Check::ALL {
        let gauge = format!(r#"rollcall_findings{{check="{}"}}"#, check.as_str());
        assert!(metrics.contains(&gauge), "{gauge}");
    }
    world.finish().await;
}

#[test]
fn warnings_are_told_from_what_is_critical() {
    let warnings: BTreeSet<&str> = Check::ALL
        .into_iter()
        .filter(|check| check.severity() == Severity::Warning)
        .map(Check::as_str)
        .collect();
    let listed: Vec<BTreeSet<&str>> = expressions()
        .into_iter()
        .filter(|text| text.contains("rollcall_findings"))
        .map(|text| text.split('"').nth(1).unwrap().split('|').collect())
        .collect();
    assert_eq!(listed, [warnings.clone(), warnings]);
}
