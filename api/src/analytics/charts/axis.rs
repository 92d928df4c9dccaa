//! Where values lie in a frame, and which of them are named.

use chrono::{Datelike, Days, Months, NaiveDate, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use domain::Timestamp;
use projections::analytics::Window;

use super::sheet::Frame;
use crate::analytics::params::midnight;

/// Values from 0 upwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// The top of the frame.
    pub top: f64,
    step: f64,
}

impl Scale {
    /// One that reaches at least to `max`, with 2 to 6 round numbers, at least `step_min` apart.
    pub fn reaching(max: f64, step_min: f64) -> Self {
        let raw = (max / 5.0).max(step_min);
        let power = 10_f64.powf(raw.log10().floor());
        let factors = [1.0, 2.0, 2.5, 5.0, 10.0];
        let fits = |factor: &&f64| {
            let step = *factor * power;
            // No halves where only whole numbers are.
            step >= raw - 1e-9 && (step_min < 1.0 || step.fract() == 0.0)
        };
        let step = factors.iter().find(fits).map_or(10.0 * power, |factor| factor * power);
        Self { top: ((max / step).ceil() * step).max(step), step }
    }

    /// Hours of days: every 4 up to 24.
    pub fn hours(top: f64) -> Self {
        Self { top, step: 4.0 }
    }

    /// The named values.
    pub fn ticks(&self) -> Vec<f64> {
        let count = (self.top / self.step + 1e-9).floor() as i32;
        (0..=count).map(|n| f64::from(n) * self.step).collect()
    }

    /// A named value in words.
    pub fn number(&self, value: f64) -> String {
        let places = usize::from(self.step.fract() != 0.0) + usize::from(self.step < 0.1);
        format!("{value:.places$}")
    }

    /// Where a value lies.
    pub fn y(&self, value: f64, frame: Frame) -> i32 {
        let height = f64::from(frame.bottom - frame.top);
        frame.bottom - (value / self.top * height).round() as i32
    }
}

/// Instants from the left to the right.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    /// What the frame shows.
    pub window: Window,
    /// Whose clock names it.
    pub zone: Tz,
}

/// Between two named instants of one day, in minutes.
const MINUTES: [i64; 9] = [1, 5, 10, 15, 30, 60, 120, 180, 360];
/// Between two named days.
const DAYS: [u64; 4] = [1, 2, 7, 14];
/// Between two named months.
const MONTHS: [u32; 4] = [1, 2, 3, 6];

impl Time {
    /// Where an instant lies; outside of the window, at its edge.
    pub fn x(&self, at: Timestamp, frame: Frame) -> i32 {
        let length = (self.window.to - self.window.from).num_milliseconds().max(1) as f64;
        let into = (at - self.window.from).num_milliseconds() as f64;
        let width = f64::from(frame.right - frame.left);
        frame.left + ((into / length).clamp(0.0, 1.0) * width).round() as i32
    }

    /// The named instants, at most so many, each with its place.
    pub fn ticks(&self, frame: Frame, ticks_max: usize) -> Vec<(i32, String)> {
        let length = self.window.to - self.window.from;
        let fits =
            |step: TimeDelta| length.num_seconds() / step.num_seconds().max(1) <= ticks_max as i64;
        let named = |at: &Timestamp| *at >= self.window.from && *at <= self.window.to;
        let ticks = if let Some(&step) = MINUTES.iter().find(|m| fits(TimeDelta::minutes(**m))) {
            self.within_days(step)
        } else if let Some(&step) = DAYS.iter().find(|days| fits(TimeDelta::days(**days as i64))) {
            self.at_midnights(step)
        } else {
            let step = MONTHS.iter().find(|m| fits(TimeDelta::days(30 * i64::from(**m))));
            self.at_months(step.copied().unwrap_or(12))
        };
        let placed = ticks.into_iter().filter(|(at, _)| named(at));
        placed.map(|(at, words)| (self.x(at, frame), words)).collect()
    }

    fn first_day(&self) -> NaiveDate {
        self.window.from.with_timezone(&self.zone).date_naive()
    }

    fn days(&self) -> impl Iterator<Item = NaiveDate> {
        let last = self.window.to.with_timezone(&self.zone).date_naive();
        self.first_day().iter_days().take_while(move |day| *day <= last)
    }

    /// By the clock on the wall: what it skips is not named, what it shows twice is named once.
    fn within_days(&self, step: i64) -> Vec<(Timestamp, String)> {
        let mut ticks = Vec::new();
        for day in self.days() {
            for minute in (0..1_440).step_by(step as usize) {
                let Some(time) = day.and_hms_opt(minute / 60, minute % 60, 0) else { continue };
                let Some(at) = self.zone.from_local_datetime(&time).earliest() else { continue };
                let words = if time.hour() == 0 && time.minute() == 0 {
                    time.format("%-d %b").to_string()
                } else {
                    time.format("%H:%M").to_string()
                };
                ticks.push((at.with_timezone(&Utc), words));
            }
        }
        ticks
    }

    fn at_midnights(&self, step: u64) -> Vec<(Timestamp, String)> {
        // Whole weeks begin with Mondays.
        let since_monday = u64::from(self.first_day().weekday().num_days_from_monday());
        let back = if step.is_multiple_of(7) { since_monday } else { 0 };
        let first = self.first_day().checked_sub_days(Days::new(back)).unwrap_or_default();
        let days = first.iter_days().step_by(step as usize);
        let last = self.window.to.with_timezone(&self.zone).date_naive();
        let tick = |day: NaiveDate| (midnight(day, self.zone), day.format("%-d %b").to_string());
        days.take_while(|day| *day <= last).map(tick).collect()
    }

    fn at_months(&self, step: u32) -> Vec<(Timestamp, String)> {
        let mut month = self.first_day().with_day(1).unwrap_or_default();
        let last = self.window.to.with_timezone(&self.zone).date_naive();
        let mut ticks = Vec::new();
        while month <= last {
            ticks.push((midnight(month, self.zone), month.format("%b %Y").to_string()));
            let Some(next) = month.checked_add_months(Months::new(step)) else { break };
            month = next;
        }
        ticks
    }

    /// The window in words.
    pub fn words(&self) -> String {
        let edge =
            |at: Timestamp| at.with_timezone(&self.zone).format("%Y-%m-%d %H:%M").to_string();
        let (from, to) = (edge(self.window.from), edge(self.window.to));
        format!("{from} to {to}, {}", self.zone.name())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const FRAME: Frame = Frame { left: 0, top: 0, right: 1000, bottom: 100 };

    fn words(from: &str, to: &str, zone: Tz) -> Vec<String> {
        let window = Window { from: from.parse().unwrap(), to: to.parse().unwrap() };
        Time { window, zone }.ticks(FRAME, 12).into_iter().map(|(_, words)| words).collect()
    }

    #[test]
    fn a_scale_reaches_the_highest_value_in_round_steps() {
        for (max, step_min, top, ticks) in [
            (0.0, 1.0, 1.0, 2),
            (1.0, 1.0, 1.0, 2),
            (7.0, 1.0, 8.0, 5),
            (12.0, 1.0, 15.0, 4),
            (1_234.0, 1.0, 1_250.0, 6),
            (0.4, 0.001, 0.4, 5),
        ] {
            let scale = Scale::reaching(max, step_min);
            assert!((scale.top - top).abs() < 1e-9, "{max}: {scale:?}");
            assert_eq!(scale.ticks().len(), ticks, "{max}: {scale:?}");
        }
    }

    #[test]
    fn hours_are_named_by_the_clock_on_the_wall() {
        let spring = words("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", Tz::Europe__Berlin);
        assert_eq!(spring[..3], ["29 Mar", "04:00", "06:00"]);
        let utc = words("2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z", Tz::UTC);
        assert_eq!(utc[..3], ["29 Mar", "02:00", "04:00"]);
    }

    #[test]
    fn a_year_is_named_by_months_and_a_month_by_mondays() {
        let year = words("2025-11-22T10:00:00Z", "2026-11-22T10:00:00Z", Tz::UTC);
        assert_eq!((year.len(), &*year[0]), (12, "Dec 2025"));
        let month = words("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", Tz::UTC);
        assert_eq!(month, ["2 Nov", "9 Nov", "16 Nov", "23 Nov", "30 Nov"]);
    }
}
