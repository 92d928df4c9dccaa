//! People by hour and weekday: the more, the darker.

use chrono_tz::Tz;
use domain::Status;
use plotters::style::RGBColor;
use plotters::style::text_anchor::{HPos, VPos};
use projections::analytics::Window;

use super::axis::Time;
use super::label;
use super::sheet::{Drawn, Heading, INK, PALE, Sheet, WIDTH, picture};
use crate::analytics::heatmap::HeatmapItem;
use crate::problem::Problem;

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// In pixels.
const HEIGHT: i32 = 400;
/// Nobody.
const LIGHT: RGBColor = RGBColor(0xEE, 0xF4, 0xFA);
/// The most.
const DARK: RGBColor = RGBColor(0x08, 0x30, 0x6B);
/// No such hour in the window.
const NONE: RGBColor = RGBColor(0xF3, 0xF3, 0xF3);
/// From here on numbers are white.
const DARK_FROM: f64 = 0.45;

/// The picture.
pub fn draw(
    items: &[HeatmapItem],
    window: Window,
    zone: Tz,
    status: Status,
) -> Result<String, Problem> {
    let words = Time { window, zone }.words();
    let title = format!("People by hour and weekday: {}", label(status));
    let subtitle = format!("Mean, {words}");
    let heading = Heading { title: &title, subtitle: &subtitle, legend: &[] };
    let most = items.iter().filter_map(|item| item.average).fold(0.0, f64::max);
    picture(HEIGHT, &heading, |sheet| {
        if items.iter().all(|item| item.samples == 0) {
            return sheet.nothing();
        }
        if most == 0.0 {
            return sheet.only(&format!("Nobody was {} in this window", label(status)));
        }
        key(sheet, most)?;
        for item in items {
            cell(sheet, item, most)?;
        }
        for (row, weekday) in WEEKDAYS.iter().enumerate() {
            let (left, top, _, bottom) = place(sheet, row as i32 + 1, 0);
            let at = (left - 10, i32::midpoint(top, bottom));
            sheet.words(weekday, at, 12, PALE, (HPos::Right, VPos::Center))?;
        }
        for hour in 0..24 {
            let (left, _, right, bottom) = place(sheet, 7, hour);
            let at = (i32::midpoint(left, right), bottom + 8);
            sheet.words(&format!("{hour:02}"), at, 12, PALE, (HPos::Center, VPos::Top))?;
        }
        Ok(())
    })
}

/// Left, top, right, bottom of an hour.
fn place(sheet: &Sheet<'_>, weekday: i32, hour: i32) -> (i32, i32, i32, i32) {
    let frame = sheet.frame;
    let (width, height) = (frame.right - frame.left, frame.bottom - frame.top);
    let left = frame.left + width * hour / 24;
    let right = frame.left + width * (hour + 1) / 24;
    let top = frame.top + height * (weekday - 1) / 7;
    let bottom = frame.top + height * weekday / 7;
    (left, top, right - 2, bottom - 2)
}

fn cell(sheet: &Sheet<'_>, item: &HeatmapItem, most: f64) -> Drawn {
    let (left, top, right, bottom) = place(sheet, item.weekday, item.hour);
    let Some(average) = item.average else {
        return sheet.rect((left, top), (right, bottom), NONE);
    };
    let share = average / most;
    sheet.rect((left, top), (right, bottom), shade(share))?;
    let ink = if share >= DARK_FROM { RGBColor(255, 255, 255) } else { INK };
    let middle = (i32::midpoint(left, right), i32::midpoint(top, bottom));
    sheet.words(&number(average), middle, 11, ink, (HPos::Center, VPos::Center))
}

/// The colours and what they stand for.
fn key(sheet: &Sheet<'_>, most: f64) -> Drawn {
    const STEPS: i32 = 32;
    const STEP_WIDTH: i32 = 4;
    let (top, bottom) = (47, 59);
    let words = format!("{} people", number(most));
    let right = WIDTH - 24 - 7 * words.chars().count() as i32;
    let left = right - 8 - STEPS * STEP_WIDTH;
    for step in 0..STEPS {
        let x = left + step * STEP_WIDTH;
        let color = shade(f64::from(step) / f64::from(STEPS - 1));
        sheet.rect((x, top), (x + STEP_WIDTH, bottom), color)?;
    }
    sheet.words("0", (left - 8, 46), 13, INK, (HPos::Right, VPos::Top))?;
    sheet.words(&words, (right, 46), 13, INK, (HPos::Left, VPos::Top))
}

fn shade(share: f64) -> RGBColor {
    let mix = |light: u8, dark: u8| {
        (f64::from(light) + (f64::from(dark) - f64::from(light)) * share).round() as u8
    };
    RGBColor(mix(LIGHT.0, DARK.0), mix(LIGHT.1, DARK.1), mix(LIGHT.2, DARK.2))
}

/// Short enough for a cell.
fn number(people: f64) -> String {
    match people {
        p if p >= 9_999.5 => format!("{:.0}k", p / 1000.0),
        p if p >= 99.5 => format!("{p:.0}"),
        0.0 => "0".to_owned(),
        p => format!("{p:.1}"),
    }
}
