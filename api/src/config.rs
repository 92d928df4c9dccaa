//! The command line: every flag, its unit, its default. Each flag is also `ROLLCALL_<FLAG>`.

// The doc comments are the `--help`, where backticks would be shown.
#![allow(clippy::doc_markdown)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::{Args, Parser, Subcommand, ValueEnum};
use domain::{Timestamp, UserId};

use crate::auth::{AuthSettings, ISSUER_DEFAULT, Jwks, KeyError, KeySources, Role, Secret};
use crate::auth::{load_or_make_secret, load_secret};
use crate::compat::{Adapters, CompatSettings, WebsocketSettings};
use crate::egress::EgressSettings;
use crate::layers::EdgeSettings;
use crate::limits;
use crate::live::LiveSettings;
use crate::serve::ServerLimits;

mod upkeep;

pub use upkeep::{CompareArgs, RebuildArgs, RebuildInstead, WhatIfArgs};

/// Presence with an audit trail.
#[derive(Debug, Parser)]
#[command(name = "rollcall", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the one binary can do. Exit status: 0 done, 1 failed, 2 wrong usage;
/// of `compare`, 3: they differ.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Migrate the database and serve; prints `rollcall ready on http://ADDR` when it may be called
    Serve(Box<ServeArgs>),
    /// Print a token alone, signed with the data dir's key or --jwt-secret
    Token(TokenArgs),
    /// Print the URL of the database in use, the embedded one's too
    DbUrl(DbUrlArgs),
    /// Bring the database's schema up to date
    Migrate(DatabaseArgs),
    /// Print the OpenAPI description of the HTTP interface
    Openapi,
    /// Read history from elsewhere into the log
    Import(ImportArgs),
    /// Check whether everything is consistent; exit status 3: it is not
    Doctor(DoctorArgs),
    /// Write the log to a file, beside a running server or without one
    Export(ExportArgs),
    /// Build a view anew while the live one serves; goes on where an earlier build was stopped
    Rebuild(RebuildArgs),
    /// Say where a replaced system's table and Rollcall's present disagree; 3 where they do
    Compare(CompareArgs),
    /// Compute history under another policy, beside what was, and compare
    WhatIf(WhatIfArgs),
}

/// Where the data is.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// Directory of the token key and of the embedded database
    #[arg(long, env = "ROLLCALL_DATA_DIR", default_value = ".rollcall", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// PostgreSQL to use; without it a private one runs in the data dir
    #[arg(long, env = "ROLLCALL_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
}

/// Whose tokens are good.
#[derive(Debug, Clone, Args)]
pub struct JwtArgs {
    /// Shared secret of HS256 tokens; without it and --jwks the data dir's key. Shorter than 32
    /// bytes (RFC 7518, 3.2) it is taken, with a warning
    #[arg(long, env = "ROLLCALL_JWT_SECRET", hide_env_values = true, value_parser = secret)]
    pub jwt_secret: Option<Secret>,
    /// The `iss` that tokens must have
    #[arg(long, env = "ROLLCALL_JWT_ISSUER", default_value = ISSUER_DEFAULT)]
    pub jwt_issuer: String,
    /// The `aud` that tokens must have
    #[arg(long, env = "ROLLCALL_JWT_AUDIENCE", default_value = ISSUER_DEFAULT)]
    pub jwt_audience: String,
}

/// The seeds of the policy of a new database. Later the stored policy wins.
#[derive(Debug, Clone, Args)]
pub struct PolicyArgs {
    /// How often clients shall send a heartbeat, in milliseconds [new database: 30000]
    #[arg(long, env = "ROLLCALL_HEARTBEAT_MS", value_name = "MS")]
    pub heartbeat_ms: Option<u64>,
    /// How long a session lives without a heartbeat, in milliseconds [new database: 120000]
    #[arg(long, env = "ROLLCALL_LEASE_MS", value_name = "MS")]
    pub lease_ms: Option<u64>,
    /// Without input for this long a user is away, in milliseconds [new database: 300000]
    #[arg(long, env = "ROLLCALL_AWAY_AFTER_MS", value_name = "MS")]
    pub away_after_ms: Option<u64>,
    /// How long a dropped WebSocket may take to come back, in milliseconds [new database: 15000]
    #[arg(long, env = "ROLLCALL_GRACE_MS", value_name = "MS")]
    pub grace_ms: Option<u64>,
}

/// Where the log is handed on to.
#[derive(Debug, Clone, Args)]
pub struct EgressArgs {
    /// NATS server whose JetStream gets every transition as a CloudEvent (built with NATS only)
    #[arg(long, env = "ROLLCALL_NATS_URL", hide_env_values = true, value_name = "URL")]
    pub nats_url: Option<String>,
    /// The stream; made where there is none
    #[arg(long, env = "ROLLCALL_NATS_STREAM", default_value = "ROLLCALL", value_name = "NAME")]
    pub nats_stream: String,
    /// What subjects begin with; the event's type follows
    #[arg(long, env = "ROLLCALL_NATS_SUBJECT", default_value = "rollcall", value_name = "PREFIX")]
    pub nats_subject: String,
}

impl EgressArgs {
    /// The same, where it is asked for.
    pub fn settings(&self) -> Option<EgressSettings> {
        let (url, stream) = (self.nats_url.clone()?, self.nats_stream.clone());
        Some(EgressSettings { url, stream, subject: self.nats_subject.clone() })
    }
}

/// How much the server lets in.
#[derive(Debug, Clone, Args)]
pub struct LimitArgs {
    /// Requests per second and subject; `service` tokens are not limited
    #[arg(long, env = "ROLLCALL_RATE_PER_SECOND", default_value_t = limits::RATE_PER_SECOND,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate_per_second: u32,
    /// Requests that a subject may send at once after a pause
    #[arg(long, env = "ROLLCALL_RATE_BURST", default_value_t = limits::RATE_BURST,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate_burst: u32,
    /// Connections open at one time; further ones wait to be accepted
    #[arg(long, env = "ROLLCALL_CONNECTIONS_MAX", value_name = "N",
        default_value_t = limits::CONNECTIONS_MAX as u32,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections_max: u32,
    /// Live feeds (streams, waiting polls, WebSockets) from one address; this machine's own are not
    /// counted
    #[arg(long, env = "ROLLCALL_LIVE_PER_ADDRESS_MAX", value_name = "N",
        default_value_t = limits::LIVE_PER_ADDRESS_MAX as u32,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub live_per_address_max: u32,
    /// Commands that may wait for the log; further ones are answered 503
    #[arg(long, env = "ROLLCALL_QUEUE_MAX", default_value_t = 50_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub queue_max: u32,
    /// A request is answered within this, else 503; in milliseconds
    #[arg(long, env = "ROLLCALL_REQUEST_TIMEOUT_MS", value_name = "MS",
        default_value_t = limits::REQUEST_TIME_MAX.as_millis() as u64,
        value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub request_timeout_ms: u64,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Whose presence WebSocket clients of the replaced system are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum WsStatus {
    /// Their own, and that of those with whom they share a group.
    #[default]
    Mates,
    /// Everybody's whom they may see.
    All,
}

/// `rollcall serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "ROLLCALL_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The tokens.
    #[command(flatten)]
    pub jwt: JwtArgs,
    /// Public keys of EdDSA, ES256 and RS256 tokens: a JWKS file or http(s) URL
    #[arg(long, env = "ROLLCALL_JWKS", value_name = "FILE|URL")]
    pub jwks: Option<String>,
    /// Origins whose pages may call, separated by commas; `*` for all
    #[arg(long, env = "ROLLCALL_ALLOW_ORIGIN", value_delimiter = ',', value_name = "ORIGIN",
        value_parser = origin)]
    pub allow_origin: Vec<HeaderValue>,
    /// Replaced systems whose clients are served: planner, chat, polling, websocket; empty: none
    #[arg(
        long,
        env = "ROLLCALL_COMPAT",
        default_value = "planner,chat,polling,websocket",
        value_name = "NAME,..."
    )]
    pub compat: Adapters,
    /// Where logins of the chat are passed on to; without it they need a token of ours
    #[arg(long, env = "ROLLCALL_CHAT_LOGIN_URL", hide_env_values = true, value_name = "URL",
        value_parser = http_url)]
    pub chat_login_url: Option<reqwest::Url>,
    /// Let webhooks lead into private networks and use plain HTTP: for servers of your own
    #[arg(long, env = "ROLLCALL_WEBHOOK_ALLOW_PRIVATE")]
    pub webhook_allow_private: bool,
    /// Where the log is handed on to.
    #[command(flatten)]
    pub egress: EgressArgs,
    /// Whether WebSocket clients of the replaced system may have their token in the URL, which
    /// proxies tend to log
    #[arg(long, env = "ROLLCALL_WS_URL_TOKEN", default_value_t = true, value_name = "BOOL",
        action = clap::ArgAction::Set)]
    pub ws_url_token: bool,
    /// Whose presence they are told
    #[arg(long, env = "ROLLCALL_WS_STATUS", value_enum, default_value_t)]
    pub ws_status: WsStatus,
    /// The policy.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// The limits.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// How log lines look; RUST_LOG chooses which ones are written
    #[arg(long, env = "ROLLCALL_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

impl ServeArgs {
    /// What tokens must be like. Makes the data dir's key where it is needed and missing.
    pub fn auth_settings(&self) -> Result<AuthSettings, KeyError> {
        let secret = match &self.jwt.jwt_secret {
            Some(secret) => Some(secret.clone()),
            // Whoever names public keys wants no token that a file on this disk can sign.
            None if self.jwks.is_some() => None,
            None => Some(load_or_make_secret(&self.database.data_dir)?),
        };
        Ok(AuthSettings {
            keys: KeySources { secret, jwks: self.jwks.as_deref().map(Jwks::at) },
            issuer: self.jwt.jwt_issuer.clone(),
            audience: self.jwt.jwt_audience.clone(),
        })
    }

    /// What the edge around the routes is like.
    pub fn edge_settings(&self) -> EdgeSettings {
        EdgeSettings {
            request_time_max: Duration::from_millis(self.limits.request_timeout_ms),
            allow_origins: self.allow_origin.clone(),
        }
    }

    /// Which replaced systems' clients are served.
    pub fn compat_settings(&self) -> CompatSettings {
        let (adapters, chat_login_url) = (self.compat.clone(), self.chat_login_url.clone());
        let everybody = self.ws_status == WsStatus::All;
        let websocket = WebsocketSettings { url_token: self.ws_url_token, everybody };
        CompatSettings { adapters, chat_login_url, websocket }
    }

    /// What live feeds are like.
    pub fn live_settings(&self) -> LiveSettings {
        LiveSettings {
            per_address_max: self.limits.live_per_address_max as usize,
            ..LiveSettings::default()
        }
    }

    /// What the listener lets in.
    pub fn server_limits(&self) -> ServerLimits {
        ServerLimits {
            connections_max: self.limits.connections_max as usize,
            ..ServerLimits::default()
        }
    }
}

/// `rollcall token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// The user_id that the token speaks for
    #[arg(long)]
    pub sub: UserId,
    /// What the token may do; repeatable
    #[arg(
        long = "role",
        value_name = "ROLE",
        default_value = "user",
        help = "What the token may do: user, service, auditor, analyst, admin; repeatable"
    )]
    pub roles: Vec<Role>,
    /// How long it is good: 90s, 30m, 8h, 2d
    #[arg(long, default_value = "8h", value_parser = duration)]
    pub ttl: Duration,
    /// Directory of the token key
    #[arg(long, env = "ROLLCALL_DATA_DIR", default_value = ".rollcall", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The tokens.
    #[command(flatten)]
    pub jwt: JwtArgs,
}

impl TokenArgs {
    /// The secret to sign with: the one given, else the data dir's, which `serve` has made.
    pub fn secret(&self) -> Result<Secret, KeyError> {
        self.jwt.jwt_secret.clone().map_or_else(|| load_secret(&self.data_dir), Ok)
    }
}

/// `rollcall db-url`.
#[derive(Debug, Clone, Args)]
pub struct DbUrlArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Whose rights the connection shall have
    #[arg(long, value_enum, default_value_t)]
    pub role: DbRole,
}

/// A role of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DbRole {
    /// Owns the schema.
    #[default]
    Owner,
    /// What the server runs as.
    Api,
    /// Reads the trail.
    Auditor,
    /// Reads the schema analytics, in which everybody is as others were shown them.
    Analyst,
}

/// `rollcall doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Fold anew from the log what is not as the log says: the present, users' parts of views. The
    /// log is never touched. Works beside a running server
    #[arg(long)]
    pub repair: bool,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// `rollcall import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The file to read, `-` for standard input
    pub file: PathBuf,
    /// What the file holds
    #[arg(long, value_enum, default_value_t)]
    pub format: ImportFormat,
    /// The year of a PAM log's first line, where its time stamps have none [default: this year]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1970..=9999))]
    pub year: Option<i32>,
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// What an import reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ImportFormat {
    /// One JSON object a line, as `POST /v1/import` takes them.
    #[default]
    Ndjson,
    /// An auth.log with the session lines of PAM.
    Pam,
    /// The status table of a replaced system: a header, then user, status, last_seen.
    StatusCsv,
}

/// `rollcall export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// What the file shall hold
    #[arg(long, value_enum, default_value_t)]
    pub format: ExportFormat,
    /// Events that happened at this instant (RFC 3339) or later
    #[arg(long, value_name = "INSTANT")]
    pub from: Option<Timestamp>,
    /// Events that happened before this instant
    #[arg(long, value_name = "INSTANT")]
    pub to: Option<Timestamp>,
    /// Events of these types, separated by commas, such as session_opened,claim_set
    #[arg(long, value_delimiter = ',', value_name = "TYPE",
        value_parser = clap::builder::PossibleValuesParser::new(projections::log::NAMES))]
    pub types: Vec<String>,
    /// Events about these users, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "USER")]
    pub users: Vec<UserId>,
    /// Heartbeats too
    #[arg(long)]
    pub heartbeats: bool,
    /// The file to write; standard output if not given, or `-`
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// What an export writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ExportFormat {
    /// One JSON object a line, as `/v1/log` answers them.
    #[default]
    Ndjson,
    /// A line of names, then a line an event.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// A batch of CloudEvents 1.0: one JSON array.
    Cloudevents,
}

#[allow(clippy::unnecessary_wraps)] // clap's shape of a parser.
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret(text.to_owned()))
}

fn http_url(text: &str) -> Result<reqwest::Url, String> {
    match reqwest::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) => Err("an http or https URL is expected".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin = text == "*"
        || text.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#'])
        });
    if !is_origin {
        return Err("an origin is scheme://host[:port], without a path".to_owned());
    }
    HeaderValue::from_str(text).map_err(|error| error.to_string())
}

/// `90s`, `30m`, `8h`, `2d`, and sums such as `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 90s, 30m, 8h, 2d or 1h30m");
    let mut seconds = 0_u64;
    for part in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let unit = part.chars().next_back().ok_or_else(wrong)?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let count: u64 = part[..part.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
        let part = count.checked_mul(factor).ok_or_else(wrong)?;
        seconds = seconds.checked_add(part).ok_or_else(wrong)?;
    }
    // A hundred years: beyond that a token's `exp` says nothing.
    if (1..=100 * 366 * 86_400).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
