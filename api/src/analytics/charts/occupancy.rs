//! People over time, in stacked steps.

use chrono::TimeDelta;
use domain::{Status, Timestamp};
use projections::analytics::Window;

use super::axis::{Scale, Time};
use super::sheet::{Drawn, Heading, Point, Sheet, picture};
use super::{color, label};
use crate::analytics::occupancy::OccupancyItem;
use crate::problem::Problem;

/// From the bottom up. Who is offline is not here.
const STACKED: [Status; 4] = [Status::Online, Status::Away, Status::Busy, Status::Dnd];
/// More steps than that cannot be seen.
const STEPS_MAX: usize = 430;
/// In pixels.
const HEIGHT: i32 = 420;

/// One step: from when to when, and how high the stack is after each status.
struct Step {
    from: Timestamp,
    to: Timestamp,
    heights: [f64; STACKED.len()],
}

/// The picture.
pub fn draw(items: &[OccupancyItem], window: Window, bucket: TimeDelta) -> Result<String, Problem> {
    let time = Time { window, zone: chrono_tz::UTC };
    let together = together(items.len(), bucket);
    let steps = steps(items, window, bucket, together);
    let mean = if together > 1 {
        format!("; mean of each {} h", (bucket * together as i32).num_hours().max(1))
    } else {
        String::new()
    };
    let subtitle = format!("{}{mean}", time.words());
    let legend = STACKED.map(|status| (color(status), label(status)));
    let heading = Heading { title: "People present", subtitle: &subtitle, legend: &legend };
    let highest = steps.iter().map(|step| step.heights[STACKED.len() - 1]).fold(0.0, f64::max);
    picture(HEIGHT, &heading, |sheet| {
        if items.iter().all(|item| present(item) + item.offline == 0) {
            return sheet.nothing();
        }
        let scale = Scale::reaching(highest, 1.0);
        sheet.scale_up(&scale, "people")?;
        // From the top of the stack down, each over the one before.
        for (index, status) in STACKED.iter().enumerate().rev() {
            fill(sheet, &steps, index, *status, time, scale)?;
        }
        sheet.scale_along(&time.ticks(sheet.frame, 12))
    })
}

fn fill(
    sheet: &Sheet<'_>,
    steps: &[Step],
    index: usize,
    status: Status,
    time: Time,
    scale: Scale,
) -> Drawn {
    let frame = sheet.frame;
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return Ok(()) };
    if steps.iter().all(|step| step.heights[index] == 0.0) {
        return Ok(());
    }
    let mut corners: Vec<Point> = vec![(time.x(first.from, frame), frame.bottom)];
    for step in steps {
        let y = scale.y(step.heights[index], frame);
        corners.extend([(time.x(step.from, frame), y), (time.x(step.to, frame), y)]);
    }
    corners.push((time.x(last.to, frame), frame.bottom));
    sheet.shape(corners, color(status))
}

/// How many buckets make a step, so that there are not more than can be seen. Longer ones are whole
/// days: else some would hold two nights and others none.
fn together(buckets: usize, bucket: TimeDelta) -> usize {
    let together = buckets.div_ceil(STEPS_MAX).max(1);
    let length_s = bucket.num_seconds().max(1) * together as i64;
    if together == 1 || length_s <= 6 * 3_600 {
        return together;
    }
    let days_s = (length_s as u64).div_ceil(86_400) * 86_400;
    days_s.div_ceil(bucket.num_seconds().max(1).unsigned_abs()) as usize
}

/// Steps, each the mean of its buckets.
fn steps(items: &[OccupancyItem], window: Window, bucket: TimeDelta, together: usize) -> Vec<Step> {
    let step = |group: &[OccupancyItem]| {
        let (first, last) = (group.first()?, group.last()?);
        let mut heights = [0.0; STACKED.len()];
        let mut height = 0.0;
        for (status, place) in STACKED.iter().zip(&mut heights) {
            let people: i64 = group.iter().map(|item| count(item, *status)).sum();
            height += people as f64 / group.len() as f64;
            *place = height;
        }
        Some(Step { from: first.at.0, to: (last.at.0 + bucket).min(window.to), heights })
    };
    items.chunks(together).filter_map(step).collect()
}

fn count(item: &OccupancyItem, status: Status) -> i64 {
    match status {
        Status::Online => item.online,
        Status::Away => item.away,
        Status::Busy => item.busy,
        Status::Dnd => item.dnd,
        Status::Offline => item.offline,
    }
}

fn present(item: &OccupancyItem) -> i64 {
    STACKED.iter().map(|status| count(item, *status)).sum()
}
