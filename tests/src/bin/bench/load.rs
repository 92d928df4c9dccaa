//! The load generator: a closed loop, one task a connection, all on one thread of their own.
//!
//! Its runtime shares nothing with others: no work is stolen, no lock is taken on the way of a
//! request, so that little of the machine goes into asking. One thread asks more than any server
//! on the rest of a small machine answers.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, future, stream};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Failure;
use crate::http::{self, Answer, Parsed};
use crate::machine::{Shares, Usage};

/// Room for an answer; longer ones make more.
const ANSWER_BYTES: usize = 16 * 1024;
/// The longest latency that is told from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Digits of a latency.
const LATENCY_DIGITS: u8 = 2;
/// How long after its end a round may still wait for answers.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// Connections that are made at one time.
const OPENED_AT_ONCE: usize = 256;
/// How much of an unexpected answer is shown.
const COMPLAINT_BYTES_MAX: usize = 300;

/// What one connection asks, over and over.
pub(crate) trait Script: Send + 'static {
    /// The next request.
    fn next(&mut self) -> &[u8];
    /// How many units of work the answer acknowledges; none: it is not as it should be.
    fn acknowledged(&mut self, answer: Answer<'_>) -> Option<u64>;
    /// Whether it may stop here when the time is over.
    fn may_end(&self) -> bool {
        true
    }
    /// Whether it has nothing more to ask, whatever the time.
    fn is_done(&self) -> bool {
        false
    }
    /// How long it may not ask yet.
    fn pause(&mut self) -> Option<Duration> {
        None
    }
    /// What comes before the time begins, such as a handshake.
    fn open(&mut self, _: &mut TcpStream) -> impl Future<Output = io::Result<()>> + Send {
        future::ready(Ok(()))
    }
    /// What comes after it is over, such as a farewell.
    fn close(&mut self, _: &mut TcpStream) -> impl Future<Output = io::Result<()>> + Send {
        future::ready(Ok(()))
    }
    /// Reads an answer.
    fn parse(bytes: &[u8]) -> Parsed {
        http::parse(bytes)
    }
}

/// How long a round takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Before anything is counted.
    pub(crate) warm_up: Duration,
    /// While it is counted.
    pub(crate) measured: Duration,
}

/// When a round begins to count and when it ends.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    to: Instant,
}

/// What came of a round, or of one connection's part of it.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Units acknowledged at any time, warm-up and last answers included.
    pub(crate) acknowledged: u64,
    /// Units acknowledged within the window.
    pub(crate) counted: u64,
    /// Answers that were not as they should be, and connections that broke.
    pub(crate) errors: u64,
    /// The first of them.
    pub(crate) complaint: Option<String>,
    /// Microseconds from request to answer, of answers within the window.
    pub(crate) latency_us: Histogram<u32>,
    /// Who used the processors between the first request and the last answer.
    pub(crate) shares: Shares,
    /// From where it is counted to the last answer.
    pub(crate) took: Duration,
}

impl Tally {
    fn new() -> Result<Self, Failure> {
        let latency_us = Histogram::new_with_max(LATENCY_US_MAX, LATENCY_DIGITS)?;
        Ok(Self {
            acknowledged: 0,
            counted: 0,
            errors: 0,
            complaint: None,
            latency_us,
            shares: Shares::default(),
            took: Duration::ZERO,
        })
    }

    /// A quantile of the latencies, in milliseconds.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1_000.0
    }

    fn add(&mut self, other: Self) -> Result<(), Failure> {
        self.acknowledged += other.acknowledged;
        self.counted += other.counted;
        self.errors += other.errors;
        self.complaint = self.complaint.take().or(other.complaint);
        self.latency_us.add(other.latency_us)?;
        Ok(())
    }

    fn complain(&mut self, what: impl FnOnce() -> String) {
        self.errors += 1;
        self.complaint.get_or_insert_with(what);
    }

    fn record(&mut self, latency: Duration) {
        self.latency_us.saturating_record(latency.as_micros() as u64);
    }
}

/// Plays every script on a connection of its own until the time is over.
pub(crate) async fn drive<S: Script>(
    address: SocketAddr,
    scripts: Vec<S>,
    timing: Timing,
) -> Result<Tally, Failure> {
    let (tell, told) = tokio::sync::oneshot::channel();
    thread::Builder::new().name("generator".to_owned()).spawn(move || {
        // An error says that nobody waits any longer.
        drop(tell.send(generate(address, scripts, timing)));
    })?;
    told.await?
}

fn generate<S: Script>(
    address: SocketAddr,
    scripts: Vec<S>,
    timing: Timing,
) -> Result<Tally, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let opened: Vec<_> = stream::iter(scripts)
            .map(|script| open(address, script))
            .buffer_unordered(OPENED_AT_ONCE)
            .try_collect()
            .await?;
        let usage = Usage::now();
        let from = Instant::now() + timing.warm_up;
        let window = Window { from, to: from + timing.measured };
        let mut tasks = Vec::with_capacity(opened.len());
        for (stream, script) in opened {
            tasks.push(tokio::spawn(converse(stream, script, window, Tally::new()?)));
        }
        let mut all = Tally::new()?;
        let patience = timing.warm_up + timing.measured + ANSWER_PATIENCE;
        let done = tokio::time::timeout(patience, future::try_join_all(tasks)).await??;
        all.took = from.elapsed();
        all.shares = &Usage::now() - &usage;
        let mut left = Vec::with_capacity(done.len());
        for (stream, script, tally) in done {
            if tally.errors == 0 {
                left.push((stream, script));
            }
            all.add(tally)?;
        }
        let farewells = left.iter_mut().map(|(stream, script)| script.close(stream));
        tokio::time::timeout(ANSWER_PATIENCE, future::try_join_all(farewells)).await??;
        Ok(all)
    })
}

async fn open<S: Script>(address: SocketAddr, mut script: S) -> Result<(TcpStream, S), Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    script.open(&mut stream).await?;
    Ok((stream, script))
}

/// One connection's part of a round.
async fn converse<S: Script>(
    mut stream: TcpStream,
    mut script: S,
    window: Window,
    mut tally: Tally,
) -> (TcpStream, S, Tally) {
    let mut bytes = Vec::with_capacity(ANSWER_BYTES);
    let mut began = Instant::now();
    while !script.is_done() && (began < window.to || !script.may_end()) {
        let answer = match ask::<S>(&mut stream, script.next(), &mut bytes).await {
            Ok(answer) => answer,
            Err(error) => {
                tally.complain(|| error.to_string());
                return (stream, script, tally);
            }
        };
        let ended = Instant::now();
        match script.acknowledged(answer) {
            Some(units) => {
                tally.acknowledged += units;
                if ended >= window.from && ended < window.to {
                    tally.counted += units;
                    tally.record(ended - began);
                }
            }
            None => tally.complain(|| {
                let body = &answer.body[..answer.body.len().min(COMPLAINT_BYTES_MAX)];
                format!("{} {}", answer.status, String::from_utf8_lossy(body))
            }),
        }
        began = ended;
        if let Some(pause) = script.pause() {
            tokio::time::sleep(pause).await;
            began = Instant::now();
        }
    }
    (stream, script, tally)
}

/// Sends one request and reads its answer.
async fn ask<'b, S: Script>(
    stream: &mut TcpStream,
    request: &[u8],
    bytes: &'b mut Vec<u8>,
) -> io::Result<Answer<'b>> {
    stream.write_all(request).await?;
    bytes.clear();
    loop {
        if stream.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match S::parse(bytes) {
            Parsed::Partial => {}
            Parsed::Whole(status, body) => return Ok(Answer { status, body: &bytes[body] }),
            Parsed::Garbled => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// One request outside any round: its status and its body.
pub(crate) async fn once(address: SocketAddr, request: &[u8]) -> Result<(u16, Vec<u8>), Failure> {
    struct Once;
    impl Script for Once {
        fn next(&mut self) -> &[u8] {
            &[]
        }
        fn acknowledged(&mut self, _: Answer<'_>) -> Option<u64> {
            None
        }
    }
    let mut stream = TcpStream::connect(address).await?;
    let mut bytes = Vec::with_capacity(ANSWER_BYTES);
    let answer = ask::<Once>(&mut stream, request, &mut bytes).await?;
    Ok((answer.status, answer.body.to_vec()))
}
