//! What is measured, what it is compared to, and where the bars are: BENCH.md as a table.

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
    HeartbeatWs,
    History,
    AsOf,
}

/// WebSockets that send heartbeats.
pub(crate) const SOCKETS: usize = 2_000;

/// In the order of a round: what is compared stands together.
pub(crate) const FIGURES: &[Figure] = &[
    Figure::Stock,
    Figure::Update,
    Figure::Heartbeat,
    Figure::HeartbeatWs,
    Figure::Noop,
    Figure::Status,
    Figure::Status100,
    Figure::History,
    Figure::AsOf,
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
            Self::HeartbeatWs => "heartbeat-ws",
            Self::History => "history",
            Self::AsOf => "as-of",
        }
    }

    /// What is counted.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Noop | Self::Noop64 => "requests/s",
            Self::Heartbeat
            | Self::Heartbeat64
            | Self::HeartbeatBatch
            | Self::HeartbeatWs
            | Self::Stock
            | Self::Update => "heartbeats/s",
            Self::Copy => "rows/s",
            Self::Redis => "setex/s",
            Self::Churn => "pairs/s",
            Self::Status | Self::Status100 | Self::AsOf => "statuses/s",
            Self::History => "pages/s",
        }
    }

    /// Connections that ask at one time.
    pub(crate) fn connections(self) -> usize {
        match self {
            Self::Copy | Self::AsOf => 1,
            Self::HeartbeatBatch | Self::History => 8,
            Self::HeartbeatWs => SOCKETS,
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
        if matches!(self, Self::HeartbeatBatch | Self::AsOf) { 3 } else { 1 }
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
    at_least("heartbeat-ws/heartbeat", Figure::HeartbeatWs, 1.5, Figure::Heartbeat),
    spread("heartbeat p99/p50", Figure::Heartbeat, 4.0),
    spread("heartbeat-64 p99/p50", Figure::Heartbeat64, 4.0),
    at_least("heartbeat-batch/copy", Figure::HeartbeatBatch, 0.55, Figure::Copy),
    at_least("heartbeat-batch/redis", Figure::HeartbeatBatch, 1.0, Figure::Redis),
    at_least("churn/heartbeat", Figure::Churn, 0.4, Figure::Heartbeat),
    at_least("status/noop", Figure::Status, 0.8, Figure::Noop),
    at_least("status-100/status", Figure::Status100, 5.0, Figure::Status),
];

/// Something that is no rate, with a stage of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Fanout,
    Expire,
    Rebuild,
    Growth,
    Memory,
}

/// In the order in which they are done, after all rounds.
pub(crate) const WORKS: &[Work] =
    &[Work::Fanout, Work::Expire, Work::Rebuild, Work::Growth, Work::Memory];

impl Work {
    /// Its name in the table and for `--only`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Expire => "expire",
            Self::Rebuild => "rebuild",
            Self::Growth => "growth",
            Self::Memory => "memory",
        }
    }

    /// Whether it is done only with `--long`, or by its name.
    pub(crate) fn is_long(self) -> bool {
        match self {
            Self::Fanout | Self::Expire => false,
            Self::Rebuild | Self::Growth | Self::Memory => true,
        }
    }
}

/// What is to be measured.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) figures: Vec<Figure>,
    pub(crate) works: Vec<Work>,
}

/// What has one of these names; all, if none is given. Figures come with what they are compared to.
/// Errors: a name that there is not.
pub(crate) fn chosen(names: &[String], long: bool) -> Result<Chosen, String> {
    let wants = |name: &str| names.iter().any(|wanted| wanted == name);
    let mut known = FIGURES.iter().map(|f| f.name()).chain(WORKS.iter().map(|w| w.name()));
    if let Some(unknown) = names.iter().find(|name| !known.clone().any(|known| known == **name)) {
        let first = known.next().unwrap_or_default().to_owned();
        let all = known.fold(first, |all, name| all + ", " + name);
        return Err(format!("nothing here is called {unknown}; there are {all}"));
    }
    let is_wanted = |work: &Work| {
        if names.is_empty() { long || !work.is_long() } else { wants(work.name()) }
    };
    let works = WORKS.iter().copied().filter(is_wanted).collect();
    let mut wanted: Vec<Figure> =
        FIGURES.iter().copied().filter(|f| names.is_empty() || wants(f.name())).collect();
    for bar in BARS {
        match bar.measure {
            Measure::Ratio(work, reference) if wants(work.name()) => wanted.push(reference),
            Measure::Ratio(..) | Measure::Spread(_) => {}
        }
    }
    let needed: Vec<Figure> = wanted.iter().filter_map(|figure| figure.needs()).collect();
    wanted.extend(needed);
    let figures = FIGURES.iter().filter(|figure| wanted.contains(figure)).copied().collect();
    Ok(Chosen { figures, works })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn whatever_is_chosen_brings_what_it_is_compared_to() {
        let batch = chosen(&names(&["heartbeat-batch"]), false).unwrap();
        assert_eq!(batch.figures, [Figure::HeartbeatBatch, Figure::Copy, Figure::Redis]);
        assert!(batch.works.is_empty());
        assert_eq!(chosen(&[], false).unwrap().figures, FIGURES);
        let unknown = chosen(&names(&["fanout", "nothing"]), false).unwrap_err();
        assert!(unknown.contains("nothing; there are") && unknown.contains(", memory"));
    }

    #[test]
    fn long_works_are_done_where_they_are_asked_for() {
        assert_eq!(chosen(&[], false).unwrap().works, [Work::Fanout, Work::Expire]);
        assert_eq!(chosen(&[], true).unwrap().works, WORKS);
        let growth = chosen(&names(&["growth"]), false).unwrap();
        assert_eq!(growth, Chosen { figures: Vec::new(), works: vec![Work::Growth] });
    }
}
