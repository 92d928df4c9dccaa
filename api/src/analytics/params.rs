//! What the calls take: windows of time, zones, buckets, forms.

use axum::http::HeaderMap;
use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use domain::Timestamp;
use projections::analytics::Window;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::formats::{Format, accept};
use crate::presence::as_of;
use crate::problem::Problem;

/// The forms in which analysts are answered; the first where nothing is said.
pub(crate) const FORMS: [Format; 4] = [Format::Json, Format::Csv, Format::Parquet, Format::Svg];

/// Longest window: a leap year, and a day for time zones.
pub const WINDOW_MAX: TimeDelta = TimeDelta::days(367);
/// Most buckets in a window; above it: 422.
pub const BUCKETS_MAX: i64 = 10_000;
/// Shortest bucket: what the view is made of.
pub const BUCKET_MIN: TimeDelta = TimeDelta::minutes(1);
/// Most buckets where the bucket is for us to choose.
const BUCKETS_CHOSEN_MAX: i64 = 1_000;
/// What is chosen from, in minutes.
const BUCKETS_CHOSEN: [i64; 7] = [5, 15, 30, 60, 180, 720, 1_440];

/// The form of an answer; it outranks `Accept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatName {
    /// A JSON document.
    Json,
    /// A line of names, then a line a row.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// A picture.
    Svg,
}

/// The form asked for, by `format`, else by `Accept`.
pub fn format(name: Option<FormatName>, headers: &HeaderMap) -> Result<Format, Problem> {
    match name {
        Some(FormatName::Json) => Ok(Format::Json),
        Some(FormatName::Csv) => Ok(Format::Csv),
        Some(FormatName::Parquet) => Ok(Format::Parquet),
        Some(FormatName::Svg) => Ok(Format::Svg),
        None => accept::choose(headers, &FORMS),
    }
}

/// The time zone of that name (IANA); UTC if none is given. Errors: 422 `unknown_zone`.
pub fn zone(name: Option<&str>) -> Result<Tz, Problem> {
    let unknown = |_| Problem::rule("unknown_zone", "zone: a name such as Europe/Berlin");
    name.map_or(Ok(Tz::UTC), |name| name.parse().map_err(unknown))
}

/// The window from one edge to the other: instants, or dates as the midnights of `zone`. `to` is
/// now if not given, `from` so much earlier. Errors: 400; 422 `empty_window`, `window_too_long`.
pub fn window(
    (from, to): (Option<&str>, Option<&str>),
    zone: Tz,
    usual: TimeDelta,
    now: Timestamp,
) -> Result<Window, Problem> {
    let to = to.map_or(Ok(now), |to| edge("to", to, zone))?;
    let from = match from {
        Some(from) => edge("from", from, zone)?,
        None => to.checked_sub_signed(usual).unwrap_or(to),
    };
    if from >= to {
        return Err(Problem::rule("empty_window", "from must be before to"));
    }
    if to - from > WINDOW_MAX {
        let days = WINDOW_MAX.num_days();
        let detail = format!("a window is at most {days} days long");
        return Err(Problem::rule("window_too_long", detail).with("limit_days", days));
    }
    Ok(Window { from, to })
}

fn edge(name: &str, text: &str, zone: Tz) -> Result<Timestamp, Problem> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        return as_of::check(midnight(day, zone));
    }
    let instant = DateTime::parse_from_rfc3339(text).map_err(|_| {
        let detail = format!("{name}: an instant such as 2026-01-31T09:00:00Z, or a date");
        Problem::invalid_parameter(detail)
    })?;
    as_of::check(instant.with_timezone(&Utc))
}

/// When a day begins in a zone; where midnight is skipped, at the first instant after it. A day
/// that is skipped whole, as in Samoa in 2011, is over when it begins.
pub fn midnight(day: NaiveDate, zone: Tz) -> Timestamp {
    let hour = |(day, hour): (NaiveDate, u32)| {
        let time = NaiveTime::from_hms_opt(hour, 0, 0)?;
        zone.from_local_datetime(&day.and_time(time)).earliest()
    };
    let begins = day.iter_days().take(2).flat_map(|day| (0..24).map(move |hour| (day, hour)));
    let begins = { begins }.find_map(hour);
    begins.map_or_else(|| day.and_time(NaiveTime::MIN).and_utc(), |at| at.with_timezone(&Utc))
}

/// The days of a zone that a window touches: the first, and the one after the last.
pub fn days(window: Window, zone: Tz) -> (NaiveDate, NaiveDate) {
    let first = window.from.with_timezone(&zone).date_naive();
    let last = (window.to - TimeDelta::microseconds(1)).with_timezone(&zone).date_naive();
    (first, last.checked_add_days(Days::new(1)).unwrap_or(last))
}

/// The bucket: the given one, else the shortest usual one that does not make too many of them.
/// Errors: 400; 422 `bucket_too_short`, `too_many_buckets`.
pub fn bucket(text: Option<&str>, window: Window) -> Result<TimeDelta, Problem> {
    let length = window.to - window.from;
    let Some(text) = text else {
        let fits = |minutes: &&i64| length <= TimeDelta::minutes(**minutes * BUCKETS_CHOSEN_MAX);
        let minutes = BUCKETS_CHOSEN.iter().find(fits).or(BUCKETS_CHOSEN.last());
        return Ok(TimeDelta::minutes(minutes.copied().unwrap_or(1)));
    };
    let bucket = crate::config::duration(text).ok().and_then(|d| TimeDelta::from_std(d).ok());
    let bucket =
        bucket.ok_or_else(|| Problem::invalid_parameter("bucket: a length such as 5m or 1h"))?;
    if bucket < BUCKET_MIN {
        return Err(Problem::rule("bucket_too_short", "a bucket is at least a minute long"));
    }
    let buckets = length.num_milliseconds() / bucket.num_milliseconds().max(1);
    if buckets > BUCKETS_MAX {
        let detail = format!("at most {BUCKETS_MAX} buckets; make them longer");
        return Err(Problem::rule("too_many_buckets", detail).with("limit", BUCKETS_MAX));
    }
    Ok(bucket)
}

/// The latest multiple of `step` (since 1970) that is not after `at`.
pub fn floor(at: Timestamp, step: TimeDelta) -> Timestamp {
    let over = at.timestamp_micros().rem_euclid(step.num_microseconds().unwrap_or(1).max(1));
    at - TimeDelta::microseconds(over)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn dates_are_the_midnights_of_their_zone() {
        let berlin = zone(Some("Europe/Berlin")).unwrap();
        let now = at("2026-06-01T00:00:00Z");
        let window =
            window((Some("2026-03-29"), Some("2026-03-30")), berlin, WINDOW_MAX, now).unwrap();
        assert_eq!(window.from, at("2026-03-28T23:00:00Z"));
        assert_eq!(window.to - window.from, TimeDelta::hours(23));
        let day = NaiveDate::from_ymd_opt(2026, 3, 29).unwrap();
        assert_eq!(days(window, berlin), (day, day.succ_opt().unwrap()));
    }

    #[test]
    fn where_midnight_is_skipped_a_day_begins_later() {
        let santiago = zone(Some("America/Santiago")).unwrap();
        let day = NaiveDate::from_ymd_opt(2025, 9, 7).unwrap();
        assert_eq!(midnight(day, santiago), at("2025-09-07T04:00:00Z"));
    }

    #[test]
    fn a_day_that_is_skipped_whole_is_over_when_it_begins() {
        let apia = zone(Some("Pacific/Apia")).unwrap();
        let day = NaiveDate::from_ymd_opt(2011, 12, 30).unwrap();
        assert_eq!(midnight(day, apia), at("2011-12-30T10:00:00Z"));
        assert_eq!(midnight(day.succ_opt().unwrap(), apia), midnight(day, apia));
    }

    #[test]
    fn a_bucket_that_is_ours_to_choose_makes_neither_too_many_nor_too_few() {
        let to = at("2026-06-01T00:00:00Z");
        for (days, minutes) in [(1, 5), (7, 15), (28, 60), (366, 720)] {
            let window = Window { from: to - TimeDelta::days(days), to };
            assert_eq!(bucket(None, window).unwrap(), TimeDelta::minutes(minutes), "{days} days");
        }
    }
}
