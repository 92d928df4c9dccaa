//! Who uses the processors: what limits a figure, and whether somebody else is at work here.
//!
//! Read from `/proc`; where there is none, nothing is known and nothing is said.

use std::collections::HashMap;
use std::fs;
use std::ops::Sub;
use std::time::{Duration, Instant};

/// Above this share of the machine, others disturb.
pub(crate) const OTHERS_MAX: f64 = 0.10;
/// How long the machine is watched before the first round.
const WATCH: Duration = Duration::from_millis(700);
/// `USER_HZ`: the unit of `/proc`'s times, the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time so far, in ticks: of our processes by name, and of all together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    ours: HashMap<String, f64>,
    busy: f64,
    total: f64,
    taken: Option<Instant>,
}

/// Processors used during a round, by whom.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shares {
    /// Processors used by our processes, by name.
    pub(crate) ours: HashMap<String, f64>,
    /// The part of the whole machine that others used.
    pub(crate) others: f64,
}

impl std::fmt::Display for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut ours: Vec<_> = self.ours.iter().filter(|(_, used)| **used >= 0.01).collect();
        ours.sort_by_key(|(name, _)| name.as_str());
        for (name, used) in ours {
            write!(f, "{name} {used:.2}, ")?;
        }
        write!(f, "others {:.0}%", self.others * 100.0)
    }
}

/// One process.
struct Process {
    name: String,
    parent: u32,
    ticks: f64,
}

impl Usage {
    /// As of now.
    pub(crate) fn now() -> Self {
        let processes = processes();
        let us = std::process::id();
        let mut ours = HashMap::new();
        for (&id, process) in &processes {
            if is_below(&processes, id, us) {
                let name = if id == us { "bench".to_owned() } else { called(&process.name) };
                *ours.entry(name).or_default() += process.ticks;
            }
        }
        let (busy, total) = machine().unwrap_or_default();
        Self { ours, busy, total, taken: Some(Instant::now()) }
    }
}

impl Sub for &Usage {
    type Output = Shares;

    fn sub(self, before: &Usage) -> Shares {
        let mut shares = Shares::default();
        let (Some(from), Some(to)) = (before.taken, self.taken) else { return shares };
        let ticks_all = (to - from).as_secs_f64() * TICKS_PER_SECOND;
        let mut ticks_ours = 0.0;
        for (name, ticks) in &self.ours {
            let ticks = (ticks - before.ours.get(name).unwrap_or(&0.0)).max(0.0);
            ticks_ours += ticks;
            shares.ours.insert(name.clone(), ticks / ticks_all);
        }
        let total = (self.total - before.total).max(1.0);
        shares.others = ((self.busy - before.busy - ticks_ours) / total).max(0.0);
        shares
    }
}

/// The part of the machine that is in use while we do nothing.
pub(crate) async fn others() -> f64 {
    let before = Usage::now();
    tokio::time::sleep(WATCH).await;
    (&Usage::now() - &before).others
}

/// Ours, by what they do: this program runs the references, too.
fn called(name: &str) -> String {
    match name {
        "bench" => "reference".to_owned(),
        _ if name.starts_with("rollcall") => "rollcall".to_owned(),
        _ => name.to_owned(),
    }
}

fn is_below(processes: &HashMap<u32, Process>, id: u32, ancestor: u32) -> bool {
    let mut id = id;
    // A pid that is used anew while we read could make a circle of parents.
    for _ in 0..processes.len() {
        if id == ancestor {
            return true;
        }
        match processes.get(&id) {
            Some(process) if process.parent != 0 => id = process.parent,
            Some(_) | None => return false,
        }
    }
    false
}

fn processes() -> HashMap<u32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| Some((id, process(id)?))).collect()
}

/// See proc(5): the name stands in brackets and may hold anything, so that fields count from its
/// end. Ended children count with their parent.
fn process(id: u32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (head, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    let name = head.split_once('(')?.1.to_owned();
    Some(Process { name, parent: fields.get(1)?.parse().ok()?, ticks })
}

/// Ticks in use, and all ticks, of all processors.
fn machine() -> Option<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let fields = text.lines().next()?.split_ascii_whitespace().skip(1).take(8);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    let total: f64 = ticks.iter().sum();
    Some((total - idle, total))
}
