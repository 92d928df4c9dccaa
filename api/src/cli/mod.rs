//! What the one binary does: a file a group of commands, and the database that they share.

mod compare;
mod doctor;
mod export;
mod import;
mod rebuild;
mod serve;
mod what_if;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use domain::Policy;
use projections::realm::RealmOptions;
use projections::{Realm, db::Database};

use crate::auth::{RoleSet, TokenSigner};
use crate::config::{Cli, Command, DatabaseArgs, DbRole, DbUrlArgs, PolicyArgs, TokenArgs};
use crate::embedded::Embedded;
use crate::{routes, telemetry};

/// Why a command failed, in one line.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Exit status of a comparison that found differences.
const DIFFERENCES: u8 = 3;

/// Does what the command line says. Exit status: 0 done, 1 failed, 3 something was found.
pub async fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Serve(args) => serve::serve(*args).await,
        Command::Token(args) => token(&args),
        Command::DbUrl(args) => db_url(&args),
        Command::Migrate(args) => migrate(&args).await,
        Command::Openapi => openapi(),
        Command::Import(args) => import::import(args).await,
        Command::Doctor(args) => return ended(doctor::doctor(args).await),
        Command::Export(args) => export::export(args).await,
        Command::Rebuild(args) => rebuild::rebuild(args).await,
        Command::WhatIf(args) => what_if::what_if(args).await,
        Command::Compare(args) => {
            let agrees = compare::compare(args).await;
            let status = |agrees| if agrees { ExitCode::SUCCESS } else { DIFFERENCES.into() };
            return ended(agrees.map(status));
        }
    };
    ended(done.map(|()| ExitCode::SUCCESS))
}

fn ended(done: Result<ExitCode, Failure>) -> ExitCode {
    done.unwrap_or_else(|failure| {
        eprintln!("rollcall: {failure}");
        ExitCode::FAILURE
    })
}

/// Why there is nothing to work on. Only `serve`, `migrate` and `import` make a database.
const NONE_YET: &str = "no database here yet: `rollcall serve` makes one";

/// The database in use, and what has to be stopped again, if anything.
struct Opened {
    url: String,
    embedded: Option<Embedded>,
}

impl Opened {
    /// One that is there: a command given in the wrong place says so, and makes none.
    async fn open(args: &DatabaseArgs) -> Result<Self, Failure> {
        if args.database_url.is_none() && !Embedded::is_made(&args.data_dir)? {
            return Err(NONE_YET.into());
        }
        let opened = Self::open_or_make(args).await?;
        match async { Database::new(&opened.url)?.is_made().await }.await {
            Ok(true) => Ok(opened),
            found => {
                opened.close().await?;
                found?;
                Err(NONE_YET.into())
            }
        }
    }

    /// The given one, else the data dir's: running already, or started for this command. Where one
    /// is made, that is said: it may be the wrong place.
    async fn open_or_make(args: &DatabaseArgs) -> Result<Self, Failure> {
        if let Some(url) = &args.database_url {
            return Ok(Self { url: url.clone(), embedded: None });
        }
        if !Embedded::is_made(&args.data_dir)? {
            eprintln!("no database here yet: one is made in {}", args.data_dir.display());
        }
        let embedded = Embedded::attach_or_start(&args.data_dir).await?;
        Ok(Self { url: embedded.url(), embedded: Some(embedded) })
    }

    async fn close(self) -> Result<(), Failure> {
        if let Some(embedded) = self.embedded {
            embedded.stop().await?;
        }
        Ok(())
    }
}

fn token(args: &TokenArgs) -> Result<(), Failure> {
    let secret = args.secret()?;
    let signer = TokenSigner::new(&secret.0, &args.jwt.jwt_issuer, &args.jwt.jwt_audience);
    let roles: RoleSet = args.roles.iter().copied().collect();
    print(&signer.mint(&args.sub, roles.iter(), args.ttl)?)
}

fn db_url(args: &DbUrlArgs) -> Result<(), Failure> {
    let role = match args.role {
        DbRole::Owner => None,
        DbRole::Api => Some("rollcall_api"),
        DbRole::Auditor => Some("rollcall_auditor"),
        DbRole::Analyst => Some("rollcall_analyst"),
    };
    let url = match &args.database.database_url {
        Some(url) => url.clone(),
        None => located(&args.database.data_dir)?,
    };
    print(&role.map_or_else(|| url.clone(), |role| with_role(&url, role)))
}

fn located(data_dir: &Path) -> Result<String, Failure> {
    let located = Embedded::locate(data_dir)?;
    let located = located.ok_or(NONE_YET)?;
    Ok(located.url())
}

/// The same login, with that role's rights and schema from the first statement on.
fn with_role(url: &str, role: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    let schema = if role == "rollcall_analyst" { "analytics" } else { "rollcall" };
    format!("{url}{separator}options=-c%20role%3D{role}%20-c%20search_path%3D{schema}")
}

async fn migrate(args: &DatabaseArgs) -> Result<(), Failure> {
    telemetry::init_logs(crate::config::LogFormat::Text);
    let opened = Opened::open_or_make(args).await?;
    let migrated = async { Database::new(&opened.url)?.migrate().await }.await;
    opened.close().await?;
    Ok(migrated?)
}

fn openapi() -> Result<(), Failure> {
    print(&routes::document().to_pretty_json()?)
}

/// A line to standard output. Whoever stopped reading has read enough.
fn print(line: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Joins the realm without serving.
async fn join(url: &str) -> Result<Realm, Failure> {
    Ok(Realm::join(RealmOptions {
        url: url.to_owned(),
        queue_max: crate::import::CHUNK_LINES_MAX,
        seed: None,
        on_revoked: Box::new(|_| {}),
    })
    .await?)
}

/// The policy of a new database.
fn seed(args: &PolicyArgs) -> Result<Policy, Failure> {
    let usual = Policy::default();
    let ms = |given: Option<u64>, usual: u32| {
        given.map_or(Ok(usual), |ms| u32::try_from(ms).map_err(|_| format!("{ms} ms is too long")))
    };
    let policy = Policy {
        heartbeat_ms: ms(args.heartbeat_ms, usual.heartbeat_ms)?,
        lease_ms: ms(args.lease_ms, usual.lease_ms)?,
        away_after_ms: ms(args.away_after_ms, usual.away_after_ms)?,
        grace_ms: ms(args.grace_ms, usual.grace_ms)?,
        ..usual
    };
    policy.check()?;
    Ok(policy)
}
