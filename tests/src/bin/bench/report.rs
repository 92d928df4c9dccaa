//! The table, and the same for programs.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::Failure;
use crate::machine::OTHERS_MAX;
use crate::plan::{BARS, Bar, Figure, Limit, Measure, Work};
use crate::round::{Appends, Round};
use crate::works::{Outcome, Reading};

/// All rounds of one figure.
pub(crate) struct Series {
    /// Which.
    pub(crate) figure: Figure,
    /// In order of time.
    pub(crate) rounds: Vec<Round>,
}

impl Series {
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    /// Why it does not count: the first reason of any round.
    fn void(&self) -> Option<&str> {
        self.rounds.iter().find_map(|round| round.void.as_deref())
    }

    /// What the last round has to say.
    fn remark(&self) -> Option<&str> {
        self.rounds.last().and_then(|round| round.remark.as_deref())
    }

    fn rate(&self) -> f64 {
        self.median(|round| round.rate)
    }

    fn spread(&self) -> f64 {
        self.median(|round| round.p99_ms) / self.median(|round| round.p50_ms)
    }

    fn appends(&self) -> Option<Appends> {
        let all: Vec<Appends> = self.rounds.iter().filter_map(|round| round.appends).collect();
        let mean_size = median(all.iter().map(|appends| appends.mean_size).collect());
        let busy = median(all.iter().map(|appends| appends.busy).collect());
        (!all.is_empty()).then_some(Appends { mean_size, busy })
    }

    /// The lowest and the highest round: how far the median may be trusted.
    fn range(&self) -> (f64, f64) {
        let rates = || self.rounds.iter().map(|round| round.rate);
        (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max))
    }

    /// Processor time that one unit took, by whom, in microseconds: even where others are at
    /// work, it says what is dear.
    fn processors(&self) -> String {
        let names = ["rollcall", "reference", "postgres", "redis-server", "bench"];
        let mut text = String::new();
        for name in names {
            let used = self.median(|round| round.shares.ours.get(name).copied().unwrap_or(0.0));
            if used >= 0.01 {
                let each_us = used / self.rate() * 1_000_000.0;
                // Writing to a string cannot fail.
                let _ = write!(text, "{name} {used:.2} ({each_us:.1} us), ");
            }
        }
        let others = self.median(|round| round.shares.others);
        let _ = write!(text, "others {:.0}%", others * 100.0);
        text
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (Some(upper), lower) =
        (values.get(values.len() / 2), values.get(values.len().saturating_sub(1) / 2))
    else {
        return f64::NAN;
    };
    f64::midpoint(*upper, *lower.unwrap_or(upper))
}

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) series: Vec<Series>,
    /// What is not installed here.
    pub(crate) missing: Vec<Figure>,
    pub(crate) works: Vec<(Work, Outcome)>,
}

/// What came of one bar.
struct Judged {
    name: &'static str,
    limit: Limit,
    value: Option<f64>,
    rates: Option<(f64, f64)>,
}

impl Judged {
    fn is_met(&self) -> bool {
        self.value.is_some_and(|value| self.limit.is_met(value))
    }

    fn of(bar: &Bar, all: &[Series]) -> Option<Self> {
        let find = |figure| all.iter().find(|series| series.figure == figure);
        let (name, limit) = (bar.name, bar.limit);
        match bar.measure {
            Measure::Ratio(work, reference) => {
                let (work, reference) = (find(work)?, find(reference)?);
                let valid = work.void().is_none() && reference.void().is_none();
                let rates = (work.rate(), reference.rate());
                let value = valid.then(|| rates.0 / rates.1);
                Some(Self { name, limit, value, rates: Some(rates) })
            }
            Measure::Spread(work) => {
                let work = find(work)?;
                let value = work.void().is_none().then(|| work.spread());
                Some(Self { name, limit, value, rates: None })
            }
        }
    }

    fn of_work(outcome: &Outcome) -> impl Iterator<Item = Self> {
        outcome.verdicts.iter().map(|verdict| {
            let value = outcome.void.is_none().then_some(verdict.value);
            Self { name: verdict.name, limit: verdict.limit, value, rates: None }
        })
    }
}

/// Whether every bar that was measured is met, and nothing is void.
pub(crate) fn print(measured: &Measured, json: Option<&Path>) -> Result<bool, Failure> {
    let Measured { series, missing, works } = measured;
    if !series.is_empty() {
        print_figures(series);
    }
    print_works(works);
    let mut judged: Vec<Judged> = BARS.iter().filter_map(|bar| Judged::of(bar, series)).collect();
    judged.extend(works.iter().flat_map(|(_, outcome)| Judged::of_work(outcome)));
    print_bars(&judged);
    for figure in missing {
        println!("{}: not measured, as it is not installed here", figure.name());
    }
    warn_of_others(measured);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&as_json(measured, &judged))?;
        std::fs::write(path, text + "\n")?;
    }
    let void = series.iter().any(|series| series.void().is_some())
        || works.iter().any(|(_, outcome)| outcome.void.is_some());
    Ok(judged.iter().all(Judged::is_met) && !void)
}

fn print_works(works: &[(Work, Outcome)]) {
    for (work, outcome) in works {
        println!();
        for reading in &outcome.readings {
            let (name, value, unit) = (&reading.name, reading.value, reading.unit);
            println!("{:<16} {name:<40} {value:>12.2} {unit}", work.name());
        }
        for note in &outcome.notes {
            println!("{:<16} {note}", work.name());
        }
        if let Some(why) = &outcome.void {
            println!("{:<16} VOID: {why}", work.name());
        }
    }
}

fn print_figures(all: &[Series]) {
    println!(
        "\n{:<16} {:>5} {:>9} {:<13} {:>17} {:>8} {:>8} {:>6} {:>6}  processors used (time a unit)",
        "figure", "conns", "median", "", "range", "p50 ms", "p99 ms", "batch", "append"
    );
    for series in all {
        let figure = series.figure;
        let (low, high) = series.range();
        let (size, busy) = series.appends().map_or_else(Default::default, |appends| {
            (format!("{:.0}", appends.mean_size), format!("{:.0}%", appends.busy * 100.0))
        });
        println!(
            "{:<16} {:>5} {:>9.0} {:<13} {:>17} {:>8.2} {:>8.2} {:>6} {:>6}  {}",
            figure.name(),
            figure.connections(),
            series.rate(),
            figure.unit(),
            format!("{low:.0}..{high:.0}"),
            series.median(|round| round.p50_ms),
            series.median(|round| round.p99_ms),
            size,
            busy,
            series.processors(),
        );
        if let Some(remark) = series.remark() {
            println!("{:<16} {remark}", "");
        }
        if let Some(why) = series.void() {
            println!("{:<16} VOID: {why}", "");
        }
    }
}

fn print_bars(judged: &[Judged]) {
    println!("\n{:<24} {:>9} {:>10} {:>8} {:>8}  met", "bar", "value", "reference", "ratio", "bar");
    for one in judged {
        let (value, reference) = one.rates.map_or_else(Default::default, |(value, reference)| {
            (format!("{value:.0}"), format!("{reference:.0}"))
        });
        let ratio = one.value.map_or_else(|| "void".to_owned(), |value| format!("{value:.2}"));
        let bar = match one.limit {
            Limit::AtLeast(limit) => format!(">= {limit:.2}"),
            Limit::AtMost(limit) => format!("<= {limit:.2}"),
        };
        let met = if one.is_met() { "yes" } else { "NO" };
        println!("{:<24} {value:>9} {reference:>10} {ratio:>8} {bar:>8}  {met}", one.name);
    }
    println!();
}

fn warn_of_others(measured: &Measured) {
    let rounds = measured.series.iter().flat_map(|series| &series.rounds);
    let others: Vec<f64> = rounds
        .map(|round| round.shares.others)
        .chain(measured.works.iter().map(|(_, outcome)| outcome.others))
        .collect();
    let count = others.iter().filter(|others| **others > OTHERS_MAX).count();
    if count > 0 {
        println!(
            "WARNING: others used more than {:.0}% of this machine in {count} of {} measurements",
            OTHERS_MAX * 100.0,
            others.len()
        );
    }
}

fn as_json(measured: &Measured, judged: &[Judged]) -> Value {
    let bars: Vec<Value> = judged
        .iter()
        .map(|one| {
            json!({
                "name": one.name, "value": one.value, "bar": one.limit.value(),
                "met": one.is_met(),
            })
        })
        .collect();
    let figures: Vec<Value> = measured
        .series
        .iter()
        .map(|series| {
            json!({
                "name": series.figure.name(),
                "unit": series.figure.unit(),
                "connections": series.figure.connections(),
                "value": series.rate(),
                "rounds": series.rounds.iter().map(|round| round.rate).collect::<Vec<_>>(),
                "p50_ms": series.median(|round| round.p50_ms),
                "p99_ms": series.median(|round| round.p99_ms),
                "batch_mean": series.appends().map(|appends| appends.mean_size),
                "append_busy": series.appends().map(|appends| appends.busy),
                "others": series.median(|round| round.shares.others),
                "remark": series.remark(),
                "void": series.void(),
            })
        })
        .collect();
    let works: Vec<Value> = measured
        .works
        .iter()
        .map(|(work, outcome)| {
            let reading =
                |one: &Reading| json!({ "name": one.name, "value": one.value, "unit": one.unit });
            json!({
                "name": work.name(),
                "readings": outcome.readings.iter().map(reading).collect::<Vec<_>>(),
                "notes": outcome.notes,
                "others": outcome.others,
                "void": outcome.void,
            })
        })
        .collect();
    json!({ "bars": bars, "figures": figures, "works": works })
}
