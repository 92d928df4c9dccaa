//! One person's day: the statuses as a band, the sessions as lanes below it.

use chrono::NaiveDate;
use chrono_tz::Tz;
use domain::{DeviceKind, Status, Timestamp, UserId};
use plotters::style::RGBColor;
use plotters::style::text_anchor::{HPos, VPos};
use projections::analytics::Window;
use projections::analytics::day::Story;

use super::axis::Time;
use super::sheet::{Drawn, GRID, Heading, INK, PALE, Sheet, picture};
use super::{SESSIONS, color, label};
use crate::analytics::day::{DayItem, DaySession};
use crate::problem::Problem;

/// Height of the band and of a lane, and what lies between two of them; in pixels.
const BAND: i32 = 56;
const LANE: i32 = 20;
const GAP: i32 = 6;
/// Lanes that are drawn; the sessions of others are counted in words.
const LANES_MAX: usize = 64;
/// What is narrower has no words in it.
const WORDS_WIDTH_MIN: i32 = 64;

/// Whose day it is.
pub struct About<'a> {
    /// The user.
    pub user: &'a UserId,
    /// The day.
    pub date: NaiveDate,
    /// Its beginning and end.
    pub window: Window,
    /// Whose day it is by the clock.
    pub zone: Tz,
    /// As it was, or as others were shown it.
    pub story: Story,
    /// What has not ended lasts until now.
    pub now: Timestamp,
}

/// The picture.
pub fn draw(
    items: &[DayItem],
    sessions: &[DaySession],
    about: &About<'_>,
) -> Result<String, Problem> {
    let lanes = lanes(sessions, about.now);
    let shown = lanes.len().min(LANES_MAX);
    let title = format!("{}: {}", about.date.format("%A, %-d %B %Y"), about.user);
    let story = match about.story {
        Story::Truth => "as it was",
        Story::Shown => "as others were shown it",
    };
    let hidden = lanes.len() - shown;
    let more = if hidden > 0 { format!("; {hidden} more lanes") } else { String::new() };
    let subtitle = format!("{}, {story}{more}", about.zone.name());
    let legend = Status::ALL.map(|status| (color(status), label(status)));
    let heading = Heading { title: &title, subtitle: &subtitle, legend: &legend };
    let height = 96 + BAND + 24 + (LANE + GAP) * shown.max(1) as i32 + 44;
    let time = Time { window: about.window, zone: about.zone };
    picture(height, &heading, |sheet| {
        if items.is_empty() && sessions.is_empty() {
            return sheet.nothing();
        }
        let frame = sheet.frame;
        let ticks = time.ticks(frame, 13);
        for (x, _) in &ticks {
            sheet.line((*x, frame.top), (*x, frame.bottom), GRID)?;
        }
        band(sheet, items, time, about.now)?;
        let left = (frame.left - 10, frame.top + BAND / 2);
        sheet.words("status", left, 12, PALE, (HPos::Right, VPos::Center))?;
        for (row, lane) in lanes.iter().take(LANES_MAX).enumerate() {
            let top = frame.top + BAND + 24 + row as i32 * (LANE + GAP);
            for session in lane {
                draw_session(sheet, session, time, (top, about.now))?;
            }
        }
        let left = (frame.left - 10, frame.top + BAND + 24 + LANE / 2);
        sheet.words("sessions", left, 12, PALE, (HPos::Right, VPos::Center))?;
        if sessions.is_empty() {
            let at = (frame.left + 8, left.1);
            sheet.words("none", at, 12, PALE, (HPos::Left, VPos::Center))?;
        }
        now_line(sheet, time, about.now)?;
        sheet.line((frame.left, frame.bottom), (frame.right, frame.bottom), PALE)?;
        sheet.scale_along(&ticks)
    })
}

fn band(sheet: &Sheet<'_>, items: &[DayItem], time: Time, now: Timestamp) -> Drawn {
    let frame = sheet.frame;
    let edges = |item: &DayItem| {
        let from = time.x(item.from.0, frame);
        (from, time.x(item.to.map_or(now, |to| to.0), frame).max(from + 1))
    };
    // What is short is drawn over what is long: else its one pixel would be its neighbour's.
    let is_short = |item: &DayItem| edges(item).1 - edges(item).0 == 1;
    let (short, long): (Vec<_>, Vec<_>) = items.iter().partition(|item| is_short(item));
    for item in long.into_iter().chain(short) {
        let (from, to) = edges(item);
        let status = item.status.into();
        sheet.rect((from, frame.top), (to, frame.top + BAND), color(status))?;
    }
    Ok(())
}

fn draw_session(
    sheet: &Sheet<'_>,
    session: &DaySession,
    time: Time,
    (top, now): (i32, Timestamp),
) -> Drawn {
    let from = time.x(session.opened_at.0, sheet.frame);
    let to = time.x(session.ended_at.map_or(now, |at| at.0), sheet.frame).max(from + 2);
    sheet.rect((from, top), (to, top + LANE), SESSIONS)?;
    if to - from < WORDS_WIDTH_MIN {
        return Ok(());
    }
    let kind = DeviceKind::from(session.device_kind).as_str();
    let white = RGBColor(255, 255, 255);
    sheet.words(kind, (from + 8, top + LANE / 2), 12, white, (HPos::Left, VPos::Center))
}

fn now_line(sheet: &Sheet<'_>, time: Time, now: Timestamp) -> Drawn {
    if now <= time.window.from || now >= time.window.to {
        return Ok(());
    }
    let x = time.x(now, sheet.frame);
    sheet.line((x, sheet.frame.top - 4), (x, sheet.frame.bottom), INK)?;
    sheet.words("now", (x, sheet.frame.top - 6), 11, INK, (HPos::Center, VPos::Bottom))
}

/// Sessions that do not overlap share a lane.
fn lanes(sessions: &[DaySession], now: Timestamp) -> Vec<Vec<&DaySession>> {
    let mut lanes: Vec<(Timestamp, Vec<&DaySession>)> = Vec::new();
    for session in sessions {
        let end = session.ended_at.map_or(now, |at| at.0);
        match lanes.iter_mut().find(|(busy_until, _)| *busy_until <= session.opened_at.0) {
            Some((busy_until, lane)) => {
                *busy_until = end;
                lane.push(session);
            }
            None => lanes.push((end, vec![session])),
        }
    }
    lanes.into_iter().map(|(_, lane)| lane).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::shapes::Instant;

    #[test]
    fn half_a_minute_is_seen_beside_hours() {
        let at = |time: &str| format!("2026-09-04T{time}Z").parse().unwrap();
        let (from, to) = (at("00:00:00"), "2026-09-05T00:00:00Z".parse().unwrap());
        let edges = [from, at("18:00:05"), at("18:00:35"), to];
        let statuses = [Status::Offline, Status::Online, Status::Offline];
        let item = |(edges, status): (&[Timestamp], Status)| DayItem {
            status: status.into(),
            from: Instant(edges[0]),
            to: Some(Instant(edges[1])),
            cause: None,
        };
        let items: Vec<DayItem> = edges.windows(2).zip(statuses).map(item).collect();
        let about = About {
            user: &"ana".parse().unwrap(),
            date: NaiveDate::from_ymd_opt(2026, 9, 4).unwrap(),
            window: Window { from, to },
            zone: Tz::UTC,
            story: Story::Truth,
            now: to,
        };
        let svg = draw(&items, &[], &about).unwrap();
        let last = |status| {
            let RGBColor(red, green, blue) = color(status);
            svg.rfind(&format!("#{red:02X}{green:02X}{blue:02X}")).unwrap()
        };
        assert!(last(Status::Online) > last(Status::Offline), "it is drawn over what is long");
    }
}
