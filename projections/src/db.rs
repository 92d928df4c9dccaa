//! Connections, roles and migrations.

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool, Row};

use crate::Error;

/// The schema that holds one realm.
pub const SCHEMA: &str = "rollcall";
/// Oldest PostgreSQL that has what the migrations use.
pub const SERVER_VERSION_MIN: i32 = 150_000;
/// Connections for reads of requests.
pub const READ_CONNECTIONS_MAX: u32 = 16;
/// Connections for questions about people in numbers: few, so that these hold up nobody else.
pub const ANALYSIS_CONNECTIONS_MAX: u32 = 4;
/// How long such a question may take: less than the request that asks it.
pub const ANALYSIS_TIME_MAX: Duration = Duration::from_secs(9);
/// How long a read waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Connections of which nobody outside this crate needs to know more.
pub type Pool = PgPool;

/// How to reach one realm's database.
#[derive(Debug, Clone)]
pub struct Database {
    options: PgConnectOptions,
}

impl Database {
    /// From a `postgres://` URL.
    pub fn new(url: &str) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(url)?
            .application_name("rollcall")
            // Statements are short and many: compiling them takes longer than running them.
            .options([("search_path", SCHEMA), ("timezone", "UTC"), ("jit", "off")])
            // A statement that sqlx logs as slow is logged by us, with its meaning.
            .disable_statement_logging();
        Ok(Self { options })
    }

    /// One connection as the owner: for migrations, leaves and waiting on the log.
    pub async fn owner(&self) -> Result<PgConnection, Error> {
        Ok(PgConnection::connect_with(&self.options).await?)
    }

    /// One connection as the server: it can append, and cannot change what was appended.
    pub async fn server(&self) -> Result<PgConnection, Error> {
        let mut connection = self.owner().await?;
        connection.execute("set role rollcall_api").await?;
        Ok(connection)
    }

    /// Connections for the reads of requests, as the server.
    pub fn pool(&self) -> PgPool {
        Self::served(self.options.clone(), READ_CONNECTIONS_MAX)
    }

    /// Connections for questions about people in numbers, as the server.
    pub fn analysis_pool(&self) -> PgPool {
        let time_max = ANALYSIS_TIME_MAX.as_millis();
        let options = self.options.clone().options([("statement_timeout", time_max.to_string())]);
        Self::served(options, ANALYSIS_CONNECTIONS_MAX)
    }

    fn served(options: PgConnectOptions, connections_max: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute("set role rollcall_api").await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options)
    }

    /// Hears what nodes tell each other, over a connection of its own.
    pub(crate) async fn listener(&self, channel: &str) -> Result<PgListener, Error> {
        let options = self.options.clone();
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(channel).await?;
        Ok(listener)
    }

    /// Whether a realm lives here, be its schema up to date or not.
    pub async fn is_made(&self) -> Result<bool, Error> {
        let mut connection = self.owner().await?;
        let made = sqlx::query_scalar("select to_regclass($1) is not null")
            .bind(format!("{SCHEMA}.event"))
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(made)
    }

    /// Brings the schema up to date. Safe to run by several nodes at once.
    pub async fn migrate(&self) -> Result<(), Error> {
        let mut connection = self.owner().await?;
        check_server(&mut connection).await?;
        let schema = format!("create schema if not exists {SCHEMA}");
        // Two nodes at a time may both find it missing; then one of them is told that it is there.
        if let Err(error) = connection.execute(schema.as_str()).await {
            let code = error.as_database_error().and_then(|e| e.code().map(String::from));
            if !matches!(code.as_deref(), Some("42P06" | "23505")) {
                return Err(error.into());
            }
        }
        MIGRATIONS.run(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}

/// Refuses servers whose advisory locks or partitions are not what the log stands on.
async fn check_server(connection: &mut PgConnection) -> Result<(), Error> {
    let row = sqlx::query("select current_setting('server_version_num')::int, version()")
        .fetch_one(connection)
        .await?;
    let (number, name): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    if !name.starts_with("PostgreSQL ") {
        return Err(Error::Unsupported(format!("not a PostgreSQL server: {name}")));
    }
    if number < SERVER_VERSION_MIN {
        return Err(Error::Unsupported(format!("PostgreSQL 15 or newer is needed, not {name}")));
    }
    Ok(())
}
