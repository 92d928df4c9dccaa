//! Numbers against arithmetic of our own.

use std::collections::BTreeMap;

use chrono::{Datelike, NaiveDate, TimeDelta, TimeZone, Timelike};
use chrono_tz::Tz;
use domain::Timestamp;
use serde_json::{Value, json};
use tests::{World, fold, instant};

use super::past::{Visit, analyst, at, import, online_at, shared_ms, stretches, visits};

const BERLIN: Tz = Tz::Europe__Berlin;

fn midnight(day: NaiveDate, zone: Tz) -> Timestamp {
    let midnight = zone.from_local_datetime(&day.and_hms_opt(0, 0, 0).unwrap());
    midnight.earliest().unwrap().to_utc()
}

/// Milliseconds online and offline of one day, of one user or of all.
fn day(visits: &[Visit], user: Option<&str>, day: NaiveDate, zone: Tz) -> (i64, i64, i64) {
    let whole = (midnight(day, zone), midnight(day.succ_opt().unwrap(), zone));
    let (mut users, mut online, mut known) = (0, 0, 0);
    for (name, stretches) in stretches(visits) {
        if user.is_some_and(|user| user != name) {
            continue;
        }
        let length = shared_ms((stretches[0].0, whole.1), whole);
        users += i64::from(length > 0);
        known += length;
        online += stretches.iter().map(|stretch| shared_ms(*stretch, whole)).sum::<i64>();
    }
    (users, online, known - online)
}

async fn check_days(world: &World, visits: &[Visit], from: &str, to: &str, zone: Tz) {
    for user in [None, Some("v3")] {
        let about = user.map_or_else(String::new, |user| format!("&user={user}"));
        let path =
            format!("/v1/analytics/time-in-status?from={from}&to={to}&zone={}{about}", zone.name());
        let told = analyst(world).get(&path).await.expect(200);
        let items = told["items"].as_array().unwrap();
        let expected: Vec<NaiveDate> = from
            .parse::<NaiveDate>()
            .unwrap()
            .iter_days()
            .take_while(|day| *day < to.parse().unwrap())
            .filter(|of| day(visits, user, *of, zone).0 > 0)
            .collect();
        assert!(!expected.is_empty());
        assert_eq!(items.len(), expected.len(), "{path}: {told}");
        for (item, of) in items.iter().zip(expected) {
            let (users, online, offline) = day(visits, user, of, zone);
            assert_eq!(item["day"], of.to_string());
            assert_eq!(item["users"], users, "{path}: {item}");
            // Each user's day is cut to milliseconds.
            for (name, ms) in [("online_ms", online), ("offline_ms", offline)] {
                let off = (item[name].as_i64().unwrap() - ms).abs();
                assert!(off <= 2 * users, "{path}: {name} is {}, not {ms}", item[name]);
            }
        }
    }
}

#[tokio::test]
async fn time_in_status_is_right_on_days_of_23_and_25_hours() {
    let world = World::start().await;
    let visits: Vec<Visit> = visits("2026-03-26T00:00:00Z", 6);
    import(&world, &visits).await;
    check_days(&world, &visits, "2026-03-25", "2026-04-03", BERLIN).await;
    check_days(&world, &visits, "2026-03-25", "2026-04-03", Tz::UTC).await;
    check_days(&world, &visits, "2026-10-24", "2026-10-27", BERLIN).await;
    let whole = |item: &Value| {
        let parts = ["online_ms", "away_ms", "busy_ms", "dnd_ms", "offline_ms"];
        parts.iter().map(|part| item[*part].as_i64().unwrap()).sum::<i64>()
    };
    for (date, next, hours) in [("2026-03-29", "2026-03-30", 23), ("2026-10-25", "2026-10-26", 25)]
    {
        let path = format!(
            "/v1/analytics/time-in-status?from={date}&to={next}&zone=Europe/Berlin&user=v1"
        );
        let told = analyst(&world).get(&path).await.expect(200);
        let off = whole(&told["items"][0]) - hours * 3_600_000;
        assert!(off.abs() <= 5, "{told}");
    }
    world.finish().await;
}

#[tokio::test]
async fn today_reaches_to_now_with_what_has_not_ended() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    world.advance_s(90).await;
    ana.put("/v1/users/ana/claims/manual", json!({ "status": "busy" })).await.expect(200);
    world.advance_s(20).await;
    fold::caught_up(&world.pool).await;
    for zone in ["UTC", "Pacific/Auckland"] {
        let path = format!("/v1/analytics/time-in-status?user=ana&zone={zone}");
        let told = analyst(&world).get(&path).await.expect(200);
        let sum = |name: &str| {
            let items = told["items"].as_array().unwrap().iter();
            items.map(|item| item[name].as_i64().unwrap()).sum::<i64>()
        };
        assert!((90_000..100_000).contains(&sum("online_ms")), "{told}");
        assert!((20_000..30_000).contains(&sum("busy_ms")), "{told}");
        assert_eq!(sum("offline_ms") / 10, 0, "{told}");
    }
    world.finish().await;
}

#[tokio::test]
async fn occupancy_counts_whoever_was_online_at_each_instant() {
    let world = World::start().await;
    let visits = visits("2026-05-04T00:00:00Z", 3);
    import(&world, &visits).await;
    for (from, to, bucket, minutes) in [
        ("2026-05-03T22:00:00Z", "2026-05-07T06:00:00Z", "7m", 7),
        ("2026-05-05T09:00:00Z", "2026-05-05T09:01:00Z", "1m", 1),
        ("2026-05-05T09:00:30Z", "2026-05-06T09:01:00Z", "1h30m", 90),
    ] {
        let path = format!("/v1/analytics/occupancy?from={from}&to={to}&bucket={bucket}");
        let told = analyst(&world).get(&path).await.expect(200);
        let mut next = at(&from.replace(":30Z", ":00Z"));
        for item in told["items"].as_array().unwrap() {
            assert_eq!(instant(&item["at"]), next);
            assert_eq!(item["online"], online_at(&visits, next), "{item}");
            next += TimeDelta::minutes(minutes);
        }
        assert!(next >= at(to), "{next} is before {to}");
        assert_eq!(told["bucket_ms"], minutes * 60_000);
        assert!(told["views"]["position"].as_i64().unwrap() > 0);
    }
    world.finish().await;
}

#[tokio::test]
async fn the_heatmap_is_the_mean_of_each_hour_of_the_week() {
    let world = World::start().await;
    let visits = visits("2026-10-20T00:00:00Z", 9);
    import(&world, &visits).await;
    let (from, to) = (at("2026-10-19T22:00:00Z"), at("2026-10-28T10:00:00Z"));
    let path = "/v1/analytics/heatmap?from=2026-10-20&to=2026-10-28T10:00:00Z&zone=Europe/Berlin";
    let told = analyst(&world).get(path).await.expect(200);
    let mut sums: BTreeMap<(u32, u32), (i64, i64)> = BTreeMap::new();
    let mut instant = from;
    while instant < to {
        let local = instant.with_timezone(&BERLIN);
        let hour = sums.entry((local.weekday().number_from_monday(), local.hour())).or_default();
        *hour = (hour.0 + online_at(&visits, instant), hour.1 + 1);
        instant += TimeDelta::minutes(5);
    }
    let items = told["items"].as_array().unwrap();
    assert_eq!(items.len(), 168);
    for (index, item) in items.iter().enumerate() {
        let (weekday, hour) = (index as u32 / 24 + 1, index as u32 % 24);
        assert_eq!((&item["weekday"], &item["hour"]), (&json!(weekday), &json!(hour)));
        let (sum, samples) = sums.get(&(weekday, hour)).copied().unwrap_or_default();
        assert_eq!(item["samples"], samples, "{item}");
        match item["average"].as_f64() {
            Some(mean) => assert!((mean - sum as f64 / samples as f64).abs() < 1e-9, "{item}"),
            None => assert_eq!(samples, 0, "{item}"),
        }
    }
    // The hour that the clocks showed twice was counted twice.
    assert_eq!(items[6 * 24 + 2]["samples"], 24);
    let offline = analyst(&world).get(&format!("{path}&status=offline")).await.expect(200);
    let people = |body: &Value| body["items"][100]["average"].as_f64().unwrap_or_default();
    assert!((people(&told) + people(&offline) - 6.0).abs() < 1e-9);
    world.finish().await;
}

#[tokio::test]
async fn lengths_of_sessions_are_counted_by_reason_kind_and_length() {
    let world = World::start().await;
    let visits = visits("2026-05-04T00:00:00Z", 4);
    import(&world, &visits).await;
    let path = "/v1/analytics/sessions?from=2026-05-05&to=2026-05-07";
    let told = analyst(&world).get(path).await.expect(200);
    let (from, to) = (at("2026-05-05T00:00:00Z"), at("2026-05-07T00:00:00Z"));
    let ended: Vec<&Visit> = visits.iter().filter(|v| (from..to).contains(&v.to)).collect();
    let mut counted = 0;
    for item in told["items"].as_array().unwrap() {
        let key = item["key"].as_str().unwrap();
        let belongs = |visit: &&&Visit| match item["by"].as_str().unwrap() {
            "all" => true,
            "reason" => visit.reason == key,
            "device_kind" => visit.kind == key,
            "length" => class(visit) == key,
            other => panic!("{other}"),
        };
        let mut lengths: Vec<i64> = ended.iter().filter(belongs).map(|v| length(v)).collect();
        lengths.sort_unstable();
        let quantile = |share: f64| {
            let rank = (share * lengths.len() as f64).ceil() as usize;
            lengths.get(rank.max(1) - 1).copied().unwrap_or(0)
        };
        let expected = json!([
            lengths.len(),
            lengths.iter().sum::<i64>(),
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            lengths.last().copied().unwrap_or(0)
        ]);
        let names = ["sessions", "total_ms", "median_ms", "p90_ms", "p99_ms", "max_ms"];
        let found: Value = names.iter().map(|name| item[*name].clone()).collect();
        assert_eq!(found, expected, "{item}");
        counted += lengths.len();
    }
    assert_eq!(counted, ended.len() * 4, "each counts once in every way");
    assert_eq!(told["items"].as_array().unwrap().len(), 1 + 2 + 3 + 10);
    assert_eq!(told["open"], 0);
    world.finish().await;
}

fn length(visit: &Visit) -> i64 {
    (visit.to - visit.from).num_milliseconds()
}

fn class(visit: &Visit) -> &'static str {
    match length(visit) / 60_000 {
        0 => "under 1 min",
        1..5 => "1 to 5 min",
        5..15 => "5 to 15 min",
        15..30 => "15 to 30 min",
        30..60 => "30 to 60 min",
        60..120 => "1 to 2 h",
        120..240 => "2 to 4 h",
        240..480 => "4 to 8 h",
        480..1_440 => "8 to 24 h",
        _ => "24 h and more",
    }
}
