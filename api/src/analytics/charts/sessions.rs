//! How long sessions lasted, a bar a class of lengths.

use plotters::style::text_anchor::{HPos, VPos};
use projections::analytics::Window;
use projections::analytics::sessions::By;

use super::SESSIONS;
use super::axis::{Scale, Time};
use super::sheet::{Heading, INK, picture};
use crate::analytics::sessions::SessionsItem;
use crate::problem::Problem;

/// In pixels.
const HEIGHT: i32 = 420;

/// The picture.
pub fn draw(items: &[SessionsItem], window: Window) -> Result<String, Problem> {
    let time = Time { window, zone: chrono_tz::UTC };
    let all = items.iter().find(|item| item.by == By::All.as_str());
    let all = all.filter(|all| all.sessions > 0);
    let subtitle = all.map_or_else(
        || format!("Ended {}", time.words()),
        |all| {
            let (median, p90) = (length(all.median_ms), length(all.p90_ms));
            let count = all.sessions;
            format!("{count} ended {}; median {median}, 90 of 100 up to {p90}", time.words())
        },
    );
    let heading = Heading { title: "Lengths of sessions", subtitle: &subtitle, legend: &[] };
    let lengths: Vec<&SessionsItem> =
        items.iter().filter(|item| item.by == By::Length.as_str()).collect();
    picture(HEIGHT, &heading, |sheet| {
        if all.is_none() {
            return sheet.nothing();
        }
        let most = lengths.iter().map(|item| item.sessions).max().unwrap_or(0);
        let scale = Scale::reaching(most as f64, 1.0);
        sheet.scale_up(&scale, "sessions")?;
        let width = (sheet.frame.right - sheet.frame.left) / lengths.len().max(1) as i32;
        let mut ticks = Vec::new();
        for (index, item) in lengths.iter().enumerate() {
            let left = sheet.frame.left + index as i32 * width;
            let top = scale.y(item.sessions as f64, sheet.frame);
            sheet.rect((left + 10, top), (left + width - 10, sheet.frame.bottom), SESSIONS)?;
            let (middle, count) = (left + width / 2, item.sessions.to_string());
            sheet.words(&count, (middle, top - 4), 12, INK, (HPos::Center, VPos::Bottom))?;
            ticks.push((middle, item.key.clone()));
        }
        sheet.scale_along(&ticks)
    })
}

/// A length in words.
fn length(ms: i64) -> String {
    let seconds = ms / 1_000;
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes:02} min"),
    }
}
