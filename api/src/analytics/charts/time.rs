//! Hours in each status, a stacked bar a day.

use chrono::NaiveDate;
use chrono_tz::Tz;
use domain::{Status, UserId};
use projections::analytics::Window;

use super::axis::{Scale, Time};
use super::sheet::{Drawn, Frame, Heading, Sheet, picture};
use super::{color, label};
use crate::analytics::params::midnight;
use crate::analytics::time::TimeItem;
use crate::problem::Problem;

/// In pixels.
const HEIGHT: i32 = 420;
/// Bars at least so wide have a gap between them; and are not made wider than that.
const BAR_WIDTHS: (i32, i32) = (6, 96);
const MS_PER_HOUR: f64 = 3_600_000.0;

/// The picture.
pub fn draw(
    items: &[TimeItem],
    (from, to): (NaiveDate, NaiveDate),
    zone: Tz,
    user: Option<&UserId>,
) -> Result<String, Problem> {
    let window = Window { from: midnight(from, zone), to: midnight(to, zone) };
    let last = to.pred_opt().unwrap_or(to);
    let days = if from == last { from.to_string() } else { format!("{from} to {last}") };
    let title =
        user.map_or_else(|| "Time in status".to_owned(), |u| format!("Time in status: {u}"));
    let about = if user.is_some() { "" } else { ", mean of all people known" };
    let subtitle = format!("{days}, {}{about}", zone.name());
    let legend = Status::ALL.map(|status| (color(status), label(status)));
    let heading = Heading { title: &title, subtitle: &subtitle, legend: &legend };
    picture(HEIGHT, &heading, |sheet| {
        if items.is_empty() {
            return sheet.nothing();
        }
        // 25 hours where the clocks are turned back.
        let longest = items.iter().map(total).fold(24.0, f64::max);
        let scale = Scale::hours(longest);
        sheet.scale_up(&scale, "hours")?;
        let time = Time { window, zone };
        for item in items {
            bar(sheet, item, time, scale)?;
        }
        sheet.scale_along(&ticks(time, sheet.frame, items))
    })
}

fn bar(sheet: &Sheet<'_>, item: &TimeItem, time: Time, scale: Scale) -> Drawn {
    let (left, right) = place(item.day, time, sheet.frame);
    let mut hours = 0.0;
    for status in Status::ALL {
        let from = scale.y(hours, sheet.frame);
        hours += part(item, status);
        let to = scale.y(hours, sheet.frame);
        if to < from {
            sheet.rect((left, to), (right, from), color(status))?;
        }
    }
    Ok(())
}

/// The left and right edge of a day's bar.
fn place(day: NaiveDate, time: Time, frame: Frame) -> (i32, i32) {
    let next = day.succ_opt().unwrap_or(day);
    let left = time.x(midnight(day, time.zone), frame);
    let right = time.x(midnight(next, time.zone), frame);
    let (gapped, widest) = BAR_WIDTHS;
    let width = right - left;
    if width < gapped {
        return (left, right.max(left + 1));
    }
    let spare = (width - (width * 4 / 5).min(widest)) / 2;
    (left + spare, right - spare)
}

/// Days are named below the middle of their bars: all, as long as there are not too many.
fn ticks(time: Time, frame: Frame, items: &[TimeItem]) -> Vec<(i32, String)> {
    let days = (time.window.to - time.window.from).num_days();
    if days > 12 {
        let half = (frame.right - frame.left) / (2 * days as i32);
        let middle = |(x, words): (i32, String)| (x + half, words);
        let begun = time.ticks(frame, 12).into_iter().filter(|(x, _)| *x < frame.right);
        return begun.map(middle).collect();
    }
    let tick = |item: &TimeItem| {
        let (left, right) = place(item.day, time, frame);
        (i32::midpoint(left, right), item.day.format("%a %-d %b").to_string())
    };
    items.iter().map(tick).collect()
}

/// Hours a person.
fn part(item: &TimeItem, status: Status) -> f64 {
    let ms = match status {
        Status::Online => item.online_ms,
        Status::Away => item.away_ms,
        Status::Busy => item.busy_ms,
        Status::Dnd => item.dnd_ms,
        Status::Offline => item.offline_ms,
    };
    ms as f64 / MS_PER_HOUR / item.users.max(1) as f64
}

fn total(item: &TimeItem) -> f64 {
    Status::ALL.into_iter().map(|status| part(item, status)).sum()
}
