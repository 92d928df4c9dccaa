//! What is asked about the past: one user's long history, and everybody at an instant; and how
//! PostgreSQL goes about it.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use projections::spans;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::Failure;
use crate::http::{Answer, Request, number};
use crate::load::Script;
use crate::plan::Figure;
use crate::scripts::{Names, One};
use crate::stage::Stage;

/// Whose history is long.
const HISTORIAN: &str = "h0000000";
/// Between two changes in it.
const STEP: TimeDelta = TimeDelta::minutes(1);
/// Spans in a window that is asked for: more than a page.
const WINDOW_SPANS: usize = 200;
/// Different windows.
const WINDOWS: usize = 1_000;
/// Spans on a page.
const SPANS_A_PAGE: usize = 100;
/// The shortest text of a span.
const SPAN_BYTES_MIN: usize = 100;
/// Statuses on a page: the most there may be.
const STATUSES_A_PAGE: usize = 1_000;
/// The table of spans, of whatever version.
const SPANS: &str = "status_span";

/// What there is to ask.
pub(crate) struct Past {
    windows: Arc<Names>,
    historian: i64,
    /// The instant at which everybody is asked for, and how many there were.
    at: String,
    everybody: u64,
}

impl Past {
    /// Gives one user a history of so many spans.
    pub(crate) async fn import(stage: &Stage, count: usize) -> Result<(), Failure> {
        let done = stage.call("POST /v1/import", &history(began(), count)).await?;
        if done["imported"].as_u64() != Some(count as u64) {
            return Err(format!("a history that cannot be imported: {done}").into());
        }
        Ok(())
    }

    /// Notes who is there, once that history is.
    pub(crate) async fn note(stage: &Stage, count: usize) -> Result<Self, Failure> {
        let windows = Names::make(WINDOWS, |_| window(began(), fastrand::usize(..count)));
        let row = sqlx::query(
            "select rfc3339(c.at), (select user_no from account where user_id = $1),
                    (select count(*) from current_status)
               from (select log_clock() as at) c",
        )
        .bind(HISTORIAN)
        .fetch_one(stage.log.pool())
        .await?;
        let everybody: i64 = row.try_get(2)?;
        let (at, historian) = (row.try_get(0)?, row.try_get(1)?);
        stage.caught_up().await?;
        Ok(Self { windows, historian, at, everybody: everybody.cast_unsigned() })
    }

    /// A page of the long history, at random.
    pub(crate) fn windows(&self, connections: usize, token: &str) -> Vec<Page> {
        let call = format!("GET /v1/users/{HISTORIAN}/history?{{}}&limit={SPANS_A_PAGE}");
        let request = Request::new(&call, token, "", self.windows.width());
        One::each(connections, &request, &self.windows).into_iter().map(Page).collect()
    }

    /// Everybody, page by page, over and over.
    pub(crate) fn walks(&self, connections: usize, token: &str) -> Vec<Walk> {
        let call = format!("GET /v1/status?at={}&limit={STATUSES_A_PAGE}", self.at);
        let first = Request::new(&call, token, "", 0).bytes().to_vec();
        let call = format!("{call}&cursor={{}}");
        let one = |_| Walk {
            first: first.clone(),
            call: call.clone(),
            token: token.to_owned(),
            following: None,
            seen: 0,
            everybody: self.everybody,
        };
        (0..connections).map(one).collect()
    }

    /// How many there were, at the instant that is asked about.
    pub(crate) fn everybody(&self) -> u64 {
        self.everybody
    }

    /// How the view is read for a figure, in a few words; an error is for the figure to be void.
    pub(crate) async fn plan(
        &self,
        stage: &Stage,
        figure: Figure,
    ) -> Result<Result<String, String>, Failure> {
        let last = i64::MAX;
        let (statement, values) = if figure == Figure::History {
            let window = self.windows.texts();
            let from = window[0].trim_start_matches("from=").replace("&to=", "', '");
            let values = format!("{}, '{from}', {}, {last}", self.historian, SPANS_A_PAGE + 1);
            (spans::history_statement(true), values)
        } else {
            let middle = self.everybody / 2;
            let values = format!("'{}', null, {middle}, {STATUSES_A_PAGE}", self.at);
            (spans::EVERYBODY_AT.to_owned(), values)
        };
        let mut connection = stage.log.pool().acquire().await?;
        let mut told = Vec::new();
        // A server's statement is planned for its values, or once for all.
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let plan = explain(&mut connection, mode, &statement, &values).await?;
            let scans = scans(&plan);
            if let Some(scan) = scans.iter().find(|scan| is_sequential(scan)) {
                return Ok(Err(format!("{mode}: {scan}")));
            }
            if scans.is_empty() {
                return Ok(Err(format!("{mode}: the view is not read at all")));
            }
            told = scans;
        }
        Ok(Ok(told.join(", ")))
    }
}

async fn explain(
    connection: &mut PgConnection,
    mode: &str,
    statement: &str,
    values: &str,
) -> Result<Value, Failure> {
    // What is prepared here and set goes with the transaction, or is taken back.
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(&format!("set local plan_cache_mode = {mode}; set local jit = off"))
        .execute(&mut *transaction)
        .await?;
    sqlx::raw_sql(&format!("prepare asked as {statement}")).execute(&mut *transaction).await?;
    let explained = sqlx::query_scalar(&format!("explain (format json) execute asked({values})"))
        .persistent(false)
        .fetch_one(&mut *transaction)
        .await;
    sqlx::raw_sql("deallocate asked").execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(explained?)
}

/// How the table of spans is read, wherever in a plan.
fn scans(plan: &Value) -> Vec<String> {
    match plan {
        Value::Array(parts) => parts.iter().flat_map(scans).collect(),
        Value::Object(node) => {
            let relation = node.get("Relation Name").and_then(Value::as_str).unwrap_or_default();
            let kind = node.get("Node Type").and_then(Value::as_str).unwrap_or_default();
            let index = node.get("Index Name").and_then(Value::as_str);
            let own = relation.starts_with(SPANS).then(|| match index {
                Some(index) => format!("{kind} of {relation} by {index}"),
                None => format!("{kind} of {relation}"),
            });
            own.into_iter().chain(node.values().flat_map(scans)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn is_sequential(scan: &str) -> bool {
    scan.contains("Seq Scan")
}

/// When the long history begins.
fn began() -> DateTime<Utc> {
    DateTime::from_timestamp_secs(1_577_836_800).unwrap_or_default()
}

/// Lines to import: in and out, a step apart.
fn history(began: DateTime<Utc>, count: usize) -> String {
    let line = |number: usize| {
        let name = if number.is_multiple_of(2) { "session_opened" } else { "session_closed" };
        let (at, session) = (began + STEP * number as i32, number / 2);
        format!(
            "{{\"type\":\"{name}\",\"user_id\":\"{HISTORIAN}\",\"occurred_at\":\"{}\",\
             \"session_id\":\"00000068-0000-7000-8000-{session:012x}\"}}\n",
            at.format("%FT%TZ")
        )
    };
    (0..count).map(line).collect()
}

/// Of a history of so many spans, some, as a query has it. All are of one width.
fn window(began: DateTime<Utc>, at: usize) -> String {
    let (from, to) = (began + STEP * at as i32, began + STEP * (at + WINDOW_SPANS) as i32);
    format!("from={}&to={}", from.format("%FT%TZ"), to.format("%FT%TZ"))
}

/// Pages of a history.
pub(crate) struct Page(One);

impl Script for Page {
    fn next(&mut self) -> &[u8] {
        self.0.next()
    }

    fn acknowledged(&mut self, answer: Answer<'_>) -> Option<u64> {
        self.0.acknowledged(answer).filter(|_| answer.body.len() > SPAN_BYTES_MIN)
    }
}

/// A walk through everybody.
pub(crate) struct Walk {
    first: Vec<u8>,
    call: String,
    token: String,
    /// The request for the next page.
    following: Option<Vec<u8>>,
    seen: u64,
    everybody: u64,
}

impl Script for Walk {
    fn next(&mut self) -> &[u8] {
        self.following.as_deref().unwrap_or(&self.first)
    }

    fn acknowledged(&mut self, answer: Answer<'_>) -> Option<u64> {
        if answer.status != 200 {
            return None;
        }
        let (statuses, cursor) = page(answer.body)?;
        self.seen += statuses;
        self.following = cursor.map(|cursor| {
            let call = self.call.replace("{}", &cursor.to_string());
            Request::new(&call, &self.token, "", 0).bytes().to_vec()
        });
        if self.following.is_none() {
            // Who has been everywhere has met everybody.
            let seen = std::mem::take(&mut self.seen);
            return (seen == self.everybody).then_some(statuses);
        }
        Some(statuses)
    }
}

/// How many statuses are on a page, and the cursor of the next. Each is one object, as the page is.
fn page(body: &[u8]) -> Option<(u64, Option<usize>)> {
    const CURSOR: &[u8] = br#""next_cursor":"#;
    // Before the page, and before its first status.
    let statuses = (body.split(|byte| *byte == b'{').count() as u64).checked_sub(2)?;
    let at = body.windows(CURSOR.len()).rposition(|window| window == CURSOR)?;
    let cursor = body[at + CURSOR.len()..].strip_suffix(b"}")?;
    if cursor == b"null" {
        return Some((statuses, None));
    }
    let cursor = number(cursor.strip_prefix(b"\"")?.strip_suffix(b"\"")?)?;
    Some((statuses, Some(cursor)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_says_how_many_there_are_and_where_the_next_begins() {
        let middle = br#"{"items":[{"user_id":"a"},{"user_id":"b"}],"next_cursor":"17"}"#;
        assert_eq!(page(middle), Some((2, Some(17))));
        assert_eq!(page(br#"{"items":[],"next_cursor":null}"#), Some((0, None)));
        assert_eq!(page(b"{}"), None);
    }

    #[test]
    fn a_sequential_scan_of_the_view_is_found_however_deep_it_is() {
        let scan = |kind: &str, name: &str| json!({ "Node Type": kind, "Relation Name": name });
        let plan = json!([{ "Plan": { "Node Type": "Limit", "Plans": [
            scan("Seq Scan", "account"), scan("Index Only Scan", "status_span_1"),
            { "Plans": [scan("Seq Scan", "status_span_2")] },
        ] } }]);
        let found = scans(&plan);
        assert_eq!(found, ["Index Only Scan of status_span_1", "Seq Scan of status_span_2"]);
        assert!(!is_sequential(&found[0]) && is_sequential(&found[1]));
    }

    #[test]
    fn windows_are_of_one_width() {
        let began = began();
        assert_eq!(window(began, 0).len(), window(began, 9_999).len());
        assert_eq!(window(began, 1), "from=2020-01-01T00:01:00Z&to=2020-01-01T03:21:00Z");
        assert_eq!(history(began, 3).lines().count(), 3);
    }
}
