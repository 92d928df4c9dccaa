//! What the operator does now and then: build views anew, compare, ask what would be otherwise.

use clap::Args;
use clap::builder::PossibleValuesParser;
use projections::follow::versions::Change;
use projections::views::{self, VIEWS, View};

use super::DatabaseArgs;

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
