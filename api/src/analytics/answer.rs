//! One table, answered in the form that was asked for.

use axum::response::Response;
use domain::Position;
use projections::analytics::{Freshness, reached};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::extract::Json;
use crate::formats::table::Row;
use crate::formats::{Format, csv, parquet};
use crate::presence::status::no_store;
use crate::problem::Problem;
use crate::shapes::Instant;

/// How far the views have come that an answer stands on.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct FreshnessBody {
    /// All events at or below it are in.
    position: Position,
    /// All that was recorded by then is in.
    applied_to: Option<Instant>,
}

impl From<Freshness> for FreshnessBody {
    fn from(fresh: Freshness) -> Self {
        Self { position: fresh.position, applied_to: fresh.applied_to.map(Instant) }
    }
}

/// How far those views are; waits, bounded, for a position that a client has seen elsewhere.
pub async fn views(
    app: &App,
    views: &[&str],
    min_position: Option<Position>,
) -> Result<FreshnessBody, Problem> {
    match reached(app.realm.analysis(), views, min_position).await? {
        (fresh, true) => Ok(fresh.into()),
        (fresh, false) => Err(Problem::position_not_reached(fresh.position)),
    }
}

/// The answer: `body` as JSON, `rows` as a file called `name`, or what `draw` draws.
pub fn answer<R: Row>(
    format: Format,
    name: &str,
    body: impl Serialize,
    rows: &[R],
    draw: impl FnOnce() -> Result<String, Problem>,
) -> Result<Response, Problem> {
    let bytes = match format {
        Format::Json | Format::Ndjson | Format::CloudEvents => return Ok(no_store(Json(body))),
        Format::Csv => csv::file(rows).map_err(Problem::internal)?,
        Format::Parquet => parquet::file(rows).map_err(Problem::internal)?,
        Format::Svg => draw()?.into_bytes(),
    };
    Ok(format.answer(name, bytes))
}
