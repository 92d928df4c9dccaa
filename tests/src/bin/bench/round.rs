//! One figure, once: the work, the proof that it was done, and what it took.

use std::sync::Arc;
use std::time::Instant;

use crate::Failure;
use crate::http::Request;
use crate::load::{self, Tally, Timing};
use crate::machine::{Shares, Usage};
use crate::plan::Figure;
use crate::scripts::{Churn, Count, Many, Names, One, Setex, UUID_WIDTH};
use crate::site::Site;
use crate::sockets::SocketBeat;

/// Heartbeats in one request of `heartbeat-batch`.
const BEATS_A_BATCH: usize = 1_000;
/// Users in one request of `status-100`.
const USERS_A_QUERY: usize = 100;
/// What a client sends.
const BEAT: &str = r#"{"idle_ms":0}"#;

/// What came of one round of one figure.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// Units a second.
    pub(crate) rate: f64,
    /// Median latency of a request, in milliseconds.
    pub(crate) p50_ms: f64,
    /// The 99th percentile.
    pub(crate) p99_ms: f64,
    /// Why it does not count.
    pub(crate) void: Option<String>,
    /// What else there is to say.
    pub(crate) remark: Option<String>,
    /// What `append` was given at a time, and the part of the time it was at work.
    pub(crate) appends: Option<Appends>,
    /// Who used the processors.
    pub(crate) shares: Shares,
}

/// What the server says of its appends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appends {
    /// Things in a batch, on average.
    pub(crate) mean_size: f64,
    /// The part of the time that an append was under way.
    pub(crate) busy: f64,
}

/// What a round begins from.
struct Before {
    head: i64,
    metrics: String,
    at: Instant,
}

impl Before {
    async fn of(site: &Site) -> Result<Self, Failure> {
        Ok(Self {
            head: site.stage.log.head().await?,
            metrics: site.stage.metrics().await?,
            at: Instant::now(),
        })
    }
}

/// Measures one figure once. None: what it needs is not installed. `batch` is where the rows of the
/// last `heartbeat-batch` are in the log: what `copy` copies.
pub(crate) async fn measure(
    site: &mut Site,
    figure: Figure,
    batch: &mut (i64, i64),
) -> Result<Option<Round>, Failure> {
    // What views still make of the round before is no part of this one.
    site.stage.caught_up().await?;
    site.keep_alive().await?;
    if figure == Figure::Copy {
        return copy(site, *batch).await.map(Some);
    }
    let before = Before::of(site).await?;
    let Some(tally) = play(site, figure).await? else { return Ok(None) };
    let seconds = before.at.elapsed().as_secs_f64();
    let head = site.stage.log.head().await?;
    if figure == Figure::HeartbeatBatch {
        *batch = (before.head, head);
    }
    let found = match figure {
        Figure::Heartbeat | Figure::Heartbeat64 | Figure::HeartbeatBatch | Figure::HeartbeatWs => {
            Some(site.stage.log.heartbeats(before.head, head).await?)
        }
        Figure::Churn => Some(site.stage.log.logins_and_logouts(before.head, head).await?),
        _ => None,
    };
    let appends = match found {
        // Its logins and logouts are no part of it.
        Some(_) if figure == Figure::HeartbeatWs => None,
        Some(_) => appends(&before.metrics, &site.stage.metrics().await?, seconds),
        None => None,
    };
    let measured = timing(site, figure).measured.as_secs_f64();
    let rate = tally.counted as f64 / measured / figure.acknowledgements_per_unit();
    let (p50_ms, p99_ms) = (tally.latency_ms(0.50), tally.latency_ms(0.99));
    let mut void = void(&tally, found);
    let mut remark = None;
    if let Some(past) = &site.past
        && matches!(figure, Figure::History | Figure::AsOf)
    {
        match past.plan(&site.stage, figure).await? {
            Ok(plan) if figure == Figure::AsOf => {
                let everybody = past.everybody();
                let seconds = everybody as f64 / rate;
                remark = Some(format!("all {everybody} in {seconds:.2} s; {plan}"));
            }
            Ok(plan) => remark = Some(plan),
            Err(plan) => void = void.or(Some(plan)),
        }
    }
    let shares = tally.shares;
    Ok(Some(Round { rate, p50_ms, p99_ms, void, remark, appends, shares }))
}

/// Why a round does not count, if so.
fn void(tally: &Tally, found: Option<u64>) -> Option<String> {
    if tally.errors > 0 {
        let first = tally.complaint.as_deref().unwrap_or("unknown");
        return Some(format!("{} errors, the first: {first}", tally.errors));
    }
    let acknowledged = tally.acknowledged;
    let found = found.filter(|found| *found != acknowledged)?;
    Some(format!("{acknowledged} acknowledged, {found} found in the log"))
}

fn timing(site: &Site, figure: Figure) -> Timing {
    let usual = site.extent().timing;
    Timing { measured: usual.measured * figure.length_factor(), ..usual }
}

async fn play(site: &Site, figure: Figure) -> Result<Option<Tally>, Failure> {
    let Some(address) = site.address(figure) else { return Ok(None) };
    let (timing, connections) = (timing(site, figure), figure.connections());
    let one = |call: &str, body: &str, names: &Arc<Names>| {
        let request = Request::new(call, &site.stage.token, body, names.width());
        One::each(connections, &request, names)
    };
    let (sessions, users) = (&site.sessions, &site.users);
    let tally = match figure {
        Figure::Noop | Figure::Noop64 => {
            load::drive(address, one("POST /noop", BEAT, sessions), timing).await?
        }
        Figure::Heartbeat | Figure::Heartbeat64 | Figure::Stock => {
            let scripts = one("POST /v1/sessions/{}/heartbeat", BEAT, sessions);
            load::drive(address, scripts, timing).await?
        }
        Figure::Update => {
            let numbers = Names::make(users.len(), |number| format!("{number:07}"));
            load::drive(address, one("POST /users/{}/heartbeat", BEAT, &numbers), timing).await?
        }
        Figure::HeartbeatBatch => {
            load::drive(address, site.batches(connections, BEATS_A_BATCH), timing).await?
        }
        Figure::Churn => {
            let scripts = Churn::each(connections, &site.stage.token, &site.churn_users);
            load::drive(address, scripts, timing).await?
        }
        Figure::Status => {
            load::drive(address, one("GET /v1/users/{}/status", "", users), timing).await?
        }
        Figure::Status100 => {
            let body = format!(r#"{{"users":[{}]}}"#, vec![r#""{}""#; USERS_A_QUERY].join(","));
            let call = "POST /v1/status/query";
            let request = Request::new(call, &site.stage.token, &body, users.width());
            let scripts = Many::each(connections, &request, users, Count::Statuses);
            load::drive(address, scripts, timing).await?
        }
        Figure::HeartbeatWs => {
            load::drive(address, SocketBeat::each(&site.socket_tokens), timing).await?
        }
        Figure::History | Figure::AsOf => {
            let Some(past) = &site.past else { return Ok(None) };
            if figure == Figure::History {
                load::drive(address, past.windows(connections, &site.stage.token), timing).await?
            } else {
                load::drive(address, past.walks(connections, &site.stage.token), timing).await?
            }
        }
        Figure::Redis => {
            debug_assert_eq!(sessions.width(), UUID_WIDTH);
            load::drive(address, Setex::each(connections, sessions), timing).await?
        }
        Figure::Copy => return Ok(None),
    };
    Ok(Some(tally))
}

/// The rows of the last `heartbeat-batch` once more, into a table like theirs.
async fn copy(site: &Site, (after, to): (i64, i64)) -> Result<Round, Failure> {
    let expected = site.stage.log.heartbeats(after, to).await?;
    let rows = site.stage.log.rows(after, to).await?;
    site.stage.log.empty_copy().await?;
    let usage = Usage::now();
    let began = Instant::now();
    let copied = site.stage.log.copy(&rows).await?;
    let took = began.elapsed();
    let void = (copied != expected || copied == 0)
        .then(|| format!("{expected} rows to copy, {copied} copied"));
    let ms = took.as_secs_f64() * 1_000.0;
    Ok(Round {
        rate: copied as f64 / took.as_secs_f64(),
        p50_ms: ms,
        p99_ms: ms,
        void,
        remark: None,
        appends: None,
        shares: &Usage::now() - &usage,
    })
}

fn appends(before: &str, after: &str, seconds: f64) -> Option<Appends> {
    let grown = |name| Some(sample(after, name)? - sample(before, name).unwrap_or_default());
    let calls = grown("rollcall_append_batch_size_count")?;
    let things = grown("rollcall_append_batch_size_sum")?;
    let busy = grown("rollcall_append_seconds_sum")? / seconds;
    (calls > 0.0).then_some(Appends { mean_size: things / calls, busy })
}

/// The value of a sample without labels, in Prometheus' text format.
pub(crate) fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
