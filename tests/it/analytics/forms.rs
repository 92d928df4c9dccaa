//! Who may ask, what is refused, and that every form says the same.

use api::auth::Role;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, World};

use super::past::{analyst, import, visits};

const CALLS: [&str; 5] = [
    "/v1/analytics/occupancy?from=2026-05-04&to=2026-05-08&bucket=1h",
    "/v1/analytics/time-in-status?from=2026-05-01&to=2026-05-08&zone=Europe/Berlin",
    "/v1/analytics/sessions?from=2026-05-04&to=2026-05-08",
    "/v1/analytics/heatmap?from=2026-05-04&to=2026-05-08",
    "/v1/analytics/day?user=v1&date=2026-05-05&zone=Europe/Berlin",
];

async fn fetched(client: &Client, path: &str, accept: Option<&str>) -> (String, Vec<u8>) {
    let mut request = client.request(Method::GET, path);
    if let Some(accept) = accept {
        request = request.header("accept", accept);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, response.bytes().await.unwrap().to_vec())
}

/// A row as JSON has it, flat: nothing is null, and what an object holds stands beside it.
fn flat(item: &Value, columns: &[String]) -> Vec<Value> {
    let cause = &item["cause"];
    let cell = |column: &String| match column.as_str() {
        "cause" => cause["type"].clone(),
        "reason" if !cause.is_null() => cause["reason"].clone(),
        "position" if !cause.is_null() => cause["position"].clone(),
        name => item[name].clone(),
    };
    columns.iter().map(cell).collect()
}

fn csv_rows(bytes: &[u8]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_reader(bytes);
    let columns = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let rows = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect());
    (columns, rows.collect())
}

fn parquet_rows(bytes: Vec<u8>) -> Vec<Vec<(String, Value)>> {
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
    let rows = reader.get_row_iter(None).unwrap().map(|row| {
        let row = row.unwrap();
        let cells = row.get_column_iter().map(|(name, field)| (name.clone(), value(field)));
        cells.collect()
    });
    rows.collect()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Str(text) => json!(text),
        Field::Long(number) => json!(number),
        Field::Double(number) => json!(number),
        Field::TimestampMicros(micros) => {
            let at = domain::Timestamp::from_timestamp_micros(*micros).unwrap();
            json!(at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn csv_and_parquet_hold_what_the_json_says() {
    let world = World::start().await;
    import(&world, &visits("2026-05-04T00:00:00Z", 4)).await;
    for client in [analyst(&world), world.auditor()] {
        for path in CALLS {
            let items = client.get(path).await.expect(200)["items"].as_array().unwrap().clone();
            assert!(!items.is_empty(), "{path}");
            let (kind, bytes) = fetched(&client, &format!("{path}&format=csv"), None).await;
            assert!(kind.starts_with("text/csv"), "{kind}");
            let (columns, rows) = csv_rows(&bytes);
            let as_text = |cell: Value| match cell {
                Value::Null => String::new(),
                Value::String(text) => text,
                other => other.to_string().trim_end_matches(".0").to_owned(),
            };
            let expected: Vec<Vec<String>> = items
                .iter()
                .map(|item| flat(item, &columns).into_iter().map(as_text).collect())
                .collect();
            assert_eq!(rows, expected, "{path}");
            let accept = Some("application/vnd.apache.parquet");
            let (kind, bytes) = fetched(&client, path, accept).await;
            assert_eq!(kind, "application/vnd.apache.parquet");
            let rows = parquet_rows(bytes);
            assert_eq!(rows.len(), items.len(), "{path}");
            for (row, item) in rows.into_iter().zip(&items) {
                let (names, cells): (Vec<String>, Vec<Value>) = row.into_iter().unzip();
                assert_eq!((&names, cells), (&columns, flat(item, &columns)), "{path}");
            }
        }
    }
    world.finish().await;
}

#[tokio::test]
async fn pictures_are_svg_and_say_when_there_is_nothing_to_show() {
    let world = World::start().await;
    import(&world, &visits("2026-05-04T00:00:00Z", 4)).await;
    for path in CALLS {
        for (path, accept, empty) in [
            (format!("{path}&format=svg"), None, false),
            (path.to_owned(), Some("image/svg+xml"), false),
            (path.replace("2026", "2016") + "&format=svg", None, true),
        ] {
            let (kind, bytes) = fetched(&analyst(&world), &path, accept).await;
            assert_eq!(kind, "image/svg+xml");
            let svg = String::from_utf8(bytes).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{path}");
            let said = ["No data in this window", "Nobody was online in this window"];
            assert_eq!(said.iter().any(|said| svg.contains(said)), empty, "{path}");
        }
    }
    world.finish().await;
}

#[tokio::test]
async fn numbers_are_for_analysts_auditors_and_admins() {
    let world = World::start().await;
    world.user("v1").login().await;
    for path in CALLS {
        let path = path.replace("date=2026-05-05&", "");
        world.nobody().get(&path).await.problem(401, "unauthenticated");
        for client in [world.user("ben"), world.service(), world.client("none", &[])] {
            client.get(&path).await.problem(403, "forbidden");
        }
        for role in [Role::Analyst, Role::Auditor, Role::Admin] {
            world.client("reader", &[role]).get(&path).await.expect(200);
        }
    }
    world.user("v1").get("/v1/analytics/day?user=v1").await.expect(200);
    world.finish().await;
}

#[tokio::test]
async fn windows_have_limits_and_an_order() {
    let world = World::start().await;
    let analyst = analyst(&world);
    for call in ["occupancy", "time-in-status", "sessions", "heatmap"] {
        let path = format!("/v1/analytics/{call}");
        analyst.get(&path).await.expect(200);
        for (query, status, code) in [
            ("from=2026-02-01&to=2026-02-01", 422, "empty_window"),
            ("from=2026-02-02T00:00:00Z&to=2026-02-01", 422, "empty_window"),
            ("from=2025-01-01&to=2026-02-01", 422, "window_too_long"),
            ("from=yesterday", 400, "invalid_parameter"),
            ("to=2026-02-30", 400, "invalid_parameter"),
            ("from=%2B99999-01-01", 400, "invalid_parameter"),
            ("format=png", 422, "invalid_value"),
            ("form=csv", 400, "unknown_parameter"),
        ] {
            analyst.get(&format!("{path}?{query}")).await.problem(status, code);
        }
        let request = analyst.request(Method::GET, &path).header("accept", "image/png");
        analyst.send(request).await.problem(406, "not_acceptable");
        let beyond = world.head().await + 1_000;
        let late = analyst.get(&format!("{path}?min_position={beyond}")).await;
        late.problem(503, "position_not_reached");
    }
    for (query, status, code) in [
        ("occupancy?bucket=1m&from=2026-01-01&to=2026-01-09", 422, "too_many_buckets"),
        ("occupancy?bucket=30s", 422, "bucket_too_short"),
        ("occupancy?bucket=5", 400, "invalid_parameter"),
        ("heatmap?zone=Mars/Olympus", 422, "unknown_zone"),
        ("time-in-status?bucket=hour", 422, "invalid_value"),
        ("time-in-status?user=nobody.ever", 404, "user_not_found"),
        ("time-in-status?user=no%20name", 422, "invalid_user_id"),
        ("day?user=nobody.ever", 404, "user_not_found"),
        ("day?user=analyst", 404, "user_not_found"),
        ("day", 400, "missing_parameter"),
        ("day?user=ana&date=x", 400, "invalid_parameter"),
        ("day?user=ana&date=2011-12-30&zone=Pacific/Apia", 422, "invalid_value"),
    ] {
        analyst.get(&format!("/v1/analytics/{query}")).await.problem(status, code);
    }
    // A year fits, in a picture too.
    for call in ["occupancy", "time-in-status", "sessions", "heatmap"] {
        let path = format!("/v1/analytics/{call}?from=2025-01-01&to=2026-01-01&format=svg");
        assert_eq!(analyst.get(&path).await.status, 200);
    }
    world.finish().await;
}
