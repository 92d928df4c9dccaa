//! What is measured, what it is compared to, and where the bars are: BENCH.md as a table.

use std::time::Duration;

use crate::load::Timing;

/// Something with a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Figure {
    Noop,
    Heartbeat,
    Stock,
    Update,
    Noop64,
    Heartbeat64,
    HeartbeatBatch,
    Copy,
    Redis,
    Churn,
    Status,
    Status100,
}

/// In the order of a round: what is compared stands together.
pub(crate) const FIGURES: &[Figure] = &[
    Figure::Stock,
    Figure::Update,
    Figure::Heartbeat,
    Figure::Noop,
    Figure::Status,
    Figure::Status100,
    Figure::Churn,
    Figure::Heartbeat64,
    Figure::Noop64,
    Figure::HeartbeatBatch,
    Figure::Copy,
    Figure::Redis,
];

impl Figure {
    /// Its name in the table and for `--only`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Heartbeat => "heartbeat",
            Self::Stock => "stock",
            Self::Update => "update",
            Self::Noop64 => "noop-64",
            Self::Heartbeat64 => "heartbeat-64",
            Self::HeartbeatBatch => "heartbeat-batch",
            Self::Copy => "copy",
            Self::Redis => "redis",
            Self::Churn => "churn",
            Self::Status => "status",
            Self::Status100 => "status-100",
        }
    }

    /// What is counted.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Noop | Self::Noop64 => "requests/s",
            Self::Heartbeat
            | Self::Heartbeat64
            | Self::HeartbeatBatch
            | Self::Stock
            | Self::Update => "heartbeats/s",
            Self::Copy => "rows/s",
            Self::Redis => "setex/s",
            Self::Churn => "pairs/s",
            Self::Status | Self::Status100 => "statuses/s",
        }
    }

    /// Connections that ask at one time.
    pub(crate) fn connections(self) -> usize {
        match self {
            Self::Copy => 1,
            Self::HeartbeatBatch => 8,
            Self::Noop64 | Self::Heartbeat64 => 64,
            Self::Noop
            | Self::Heartbeat
            | Self::Stock
            | Self::Update
            | Self::Redis
            | Self::Churn
            | Self::Status
            | Self::Status100 => 512,
        }
    }

    /// Acknowledgements that make one unit.
    pub(crate) fn acknowledgements_per_unit(self) -> f64 {
        if self == Self::Churn { 2.0 } else { 1.0 }
    }

    /// Over how long it is counted, in terms of the others: where many come in one answer, fewer
    /// answers would make a coarse rate.
    pub(crate) fn length_factor(self) -> u32 {
        if self == Self::HeartbeatBatch { 3 } else { 1 }
    }

    /// What has to be measured before it in the same round.
    fn needs(self) -> Option<Self> {
        // The very same rows are copied.
        (self == Self::Copy).then_some(Self::HeartbeatBatch)
    }
}

/// What is held against a bar.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Measure {
    /// One figure's rate in terms of another's.
    Ratio(Figure, Figure),
    /// A figure's 99th percentile in terms of its median.
    Spread(Figure),
}

/// Where a bar is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Limit {
    /// Whether a value meets it.
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }

    /// The number.
    pub(crate) fn value(self) -> f64 {
        match self {
            Self::AtLeast(limit) | Self::AtMost(limit) => limit,
        }
    }
}

/// One bar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    pub(crate) name: &'static str,
    pub(crate) measure: Measure,
    pub(crate) limit: Limit,
}

const fn at_least(name: &'static str, work: Figure, factor: f64, reference: Figure) -> Bar {
    Bar { name, measure: Measure::Ratio(work, reference), limit: Limit::AtLeast(factor) }
}

const fn spread(name: &'static str, work: Figure, factor: f64) -> Bar {
    Bar { name, measure: Measure::Spread(work), limit: Limit::AtMost(factor) }
}

/// Every bar of BENCH.md that is measured here.
pub(crate) const BARS: &[Bar] = &[
    at_least("heartbeat/noop", Figure::Heartbeat, 0.30, Figure::Noop),
    at_least("heartbeat/stock", Figure::Heartbeat, 8.0, Figure::Stock),
    at_least("heartbeat/update", Figure::Heartbeat, 4.0, Figure::Update),
    spread("heartbeat p99/p50", Figure::Heartbeat, 4.0),
    spread("heartbeat-64 p99/p50", Figure::Heartbeat64, 4.0),
    at_least("heartbeat-batch/copy", Figure::HeartbeatBatch, 0.55, Figure::Copy),
    at_least("heartbeat-batch/redis", Figure::HeartbeatBatch, 1.0, Figure::Redis),
    at_least("churn/heartbeat", Figure::Churn, 0.4, Figure::Heartbeat),
    at_least("status/noop", Figure::Status, 0.8, Figure::Noop),
    at_least("status-100/status", Figure::Status100, 5.0, Figure::Status),
];

/// What BENCH.md names beyond that.
pub(crate) const NOT_YET: &str =
    "heartbeat-ws, fanout, expire, history, as-of, rebuild, growth, memory";

/// Works of BENCH.md with a bar, by the names given; all, if none is given. With what they are
/// compared to. Errors: a name that there is not.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<Figure>, String> {
    let find = |name: &str| FIGURES.iter().find(|figure| figure.name() == name).copied();
    let mut wanted = Vec::new();
    for name in names {
        let figure = find(name).ok_or_else(|| {
            let all: Vec<&str> = FIGURES.iter().map(|figure| figure.name()).collect();
            format!("nothing here is called {name}; there are {}", all.join(", "))
        })?;
        wanted.push(figure);
        for bar in BARS {
            match bar.measure {
                Measure::Ratio(work, reference) if work == figure => wanted.push(reference),
                Measure::Ratio(..) | Measure::Spread(_) => {}
            }
        }
    }
    let needed: Vec<Figure> = wanted.iter().filter_map(|figure| figure.needs()).collect();
    wanted.extend(needed);
    let is_wanted = |figure: &&Figure| names.is_empty() || wanted.contains(figure);
    Ok(FIGURES.iter().filter(is_wanted).copied().collect())
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) sessions: usize,
    pub(crate) churn_users: usize,
    pub(crate) rounds: usize,
    pub(crate) timing: Timing,
}

impl Extent {
    /// The usual one.
    pub(crate) const USUAL: Self = Self {
        sessions: 100_000,
        churn_users: 20_000,
        rounds: 5,
        timing: Timing {
            warm_up: Duration::from_millis(500),
            measured: Duration::from_millis(3_500),
        },
    };
    /// Within a minute, with everything that belongs to it.
    pub(crate) const QUICK: Self = Self {
        sessions: 10_000,
        churn_users: 5_000,
        rounds: 3,
        timing: Timing {
            warm_up: Duration::from_millis(200),
            measured: Duration::from_millis(600),
        },
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_chosen_brings_what_it_is_compared_to() {
        let chosen = chosen(&["heartbeat-batch".to_owned()]).unwrap();
        assert_eq!(chosen, [Figure::HeartbeatBatch, Figure::Copy, Figure::Redis]);
        assert_eq!(super::chosen(&[]).unwrap(), FIGURES);
        assert!(super::chosen(&["nothing".to_owned()]).is_err());
    }
}
