//! `POST /v1/import`.

use axum::body::Body;
use axum::extract::State;
use futures::TryStreamExt;
use tokio_util::io::StreamReader;

use super::lines::{Line, Lines};
use super::{CHUNK_LINES_MAX, Importer, Rejected, Report, ndjson};
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::Json;
use crate::limits::BODY_IDLE_MAX;
use crate::problem::{Problem, ProblemDocument};

/// Takes history over from elsewhere, a JSON object a line, at most 64 KiB each. Repeatable.
///
/// A line that cannot be taken over is named with its number and why, and holds up no other:
/// `out_of_order` before that user's last imported event; `overlaps_history` at or after the first
/// event of our own; `before_epoch` before 1970; `in_the_future`; `session_taken`, the name is or
/// was another user's, in an earlier line too; `session_closed`, a session of that name is over;
/// `already_open`; `not_open`; and what says that the line cannot be read.
#[utoipa::path(post, path = "/v1/import", tag = "History",
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, body = Report),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn import(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<Json<Report>, Problem> {
    caller.require(&[Role::Admin])?;
    let actor = app.actor(&caller).await?;
    let body = body.into_data_stream().map_err(std::io::Error::other);
    let mut lines = Lines::new(StreamReader::new(body));
    let mut importer = Importer::new(&app.realm, Some(actor));
    let mut items = Vec::with_capacity(CHUNK_LINES_MAX);
    let cut_off =
        |error| Problem::bad_request("malformed", "the body ends too early").caused_by(error);
    loop {
        let next = tokio::time::timeout(BODY_IDLE_MAX, lines.next()).await;
        let line = next.map_err(|_| Problem::timeout())?.map_err(cut_off)?;
        let ended = line.is_none();
        match line {
            Some(Line::Text(text)) if text.trim().is_empty() => {}
            Some(Line::Text(text)) => match ndjson::parse(lines.count, &text) {
                Ok(item) => items.push(item),
                Err(rejected) => importer.report.reject(rejected),
            },
            Some(wrong) => importer.report.reject(unreadable(lines.count, &wrong)),
            None => {}
        }
        if ended || items.len() >= CHUNK_LINES_MAX {
            importer.take(std::mem::take(&mut items)).await?;
        }
        if ended {
            return Ok(Json(importer.finish().await?));
        }
    }
}

/// A line that is no text of bearable length.
pub(crate) fn unreadable(number: u64, line: &Line) -> Rejected {
    match line {
        Line::TooLong => Rejected::new(number, "line_too_long", "a line has at most 64 KiB"),
        Line::NotText | Line::Text(_) => {
            Rejected::new(number, "malformed", "the line is not UTF-8")
        }
    }
}
