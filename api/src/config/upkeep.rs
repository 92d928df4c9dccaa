//! What the operator does now and then: build views anew, compare, ask what would be otherwise.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use projections::follow::versions::Change;
use projections::views::{self, VIEWS, View};

use super::DatabaseArgs;
use crate::compare::CompareAs;
use crate::ops::what_if::WhatIfPolicy;

/// Stands for every view.
const ALL: &str = "all";

/// `rollcall rebuild`.
#[derive(Debug, Clone, Args)]
pub struct RebuildArgs {
    /// The view, or all of them in turn
    #[arg(value_name = "VIEW", value_parser = view_names())]
    pub view: String,
    /// What to do with it.
    #[command(flatten)]
    pub instead: RebuildInstead,
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// What to do with a view instead of building it.
#[allow(clippy::struct_excessive_bools, reason = "flags, of which clap takes one")]
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub struct RebuildInstead {
    /// The new version is good: drop the former one, which was kept
    #[arg(long)]
    pub confirm: bool,
    /// Stop the build that is under way, and keep what there is
    #[arg(long)]
    pub stop: bool,
    /// Throw the build that is under way, or stopped, away
    #[arg(long)]
    pub abandon: bool,
    /// The new version is not good: let the former one catch up and take its place again
    #[arg(long)]
    pub take_back: bool,
}

fn view_names() -> PossibleValuesParser {
    PossibleValuesParser::new(VIEWS.iter().map(|view| view.name).chain([ALL]))
}

impl RebuildArgs {
    /// The views that are meant.
    pub fn views(&self) -> Vec<&'static View> {
        match views::find(&self.view) {
            Some(view) => vec![view],
            None => VIEWS.iter().collect(),
        }
    }

    /// What to do with them.
    pub fn change(&self) -> Change {
        let RebuildInstead { confirm, stop, abandon, take_back } = self.instead;
        match (confirm, stop, abandon, take_back) {
            (true, ..) => Change::Confirm,
            (_, true, ..) => Change::Stop,
            (_, _, true, _) => Change::Abandon,
            (_, _, _, true) => Change::TakeBack,
            (false, false, false, false) => Change::Build,
        }
    }
}

/// `rollcall compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// What the other system says now, as `import --format status-csv` reads it; `-` for standard
    /// input
    #[arg(value_name = "FILE.csv")]
    pub file: PathBuf,
    /// In whose words statuses are compared
    #[arg(long = "as", value_enum, default_value_t)]
    pub words: CompareAs,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// `rollcall what-if`.
#[derive(Debug, Clone, Args)]
pub struct WhatIfArgs {
    /// Under which name it is kept; alone: go on with it, and compare
    #[arg(value_parser = what_if_name)]
    pub name: String,
    /// How long sessions live without a heartbeat, in milliseconds
    #[arg(long, value_name = "MS")]
    pub lease_ms: Option<u32>,
    /// Without input for this long a user is away, in milliseconds
    #[arg(long, value_name = "MS")]
    pub away_after_ms: Option<u32>,
    /// The same of interaction-driven sessions
    #[arg(long, value_name = "MS")]
    pub interaction_away_after_ms: Option<u32>,
    /// How long interaction-driven sessions live without an interaction, in milliseconds
    #[arg(long, value_name = "MS")]
    pub interaction_lease_ms: Option<u32>,
    /// Drop it
    #[arg(long, conflicts_with_all = ["lease_ms", "away_after_ms", "interaction_away_after_ms",
        "interaction_lease_ms"])]
    pub drop: bool,
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

impl WhatIfArgs {
    /// What of the policy is otherwise.
    pub fn policy(&self) -> WhatIfPolicy {
        WhatIfPolicy {
            lease_ms: self.lease_ms,
            away_after_ms: self.away_after_ms,
            interaction_away_after_ms: self.interaction_away_after_ms,
            interaction_lease_ms: self.interaction_lease_ms,
        }
    }
}

fn what_if_name(text: &str) -> Result<String, String> {
    if projections::what_if::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a name is 1 to 64 of a-z 0-9 _ -, beginning with a letter or digit".to_owned())
    }
}
