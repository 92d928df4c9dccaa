//! Why the database could not be asked, or did not take what it was given.

/// What can go wrong between a command and the log. Nothing of it was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue before the log is full.
    #[error("the queue before the log is full")]
    Overloaded,
    /// Others kept changing the same user; nothing was written.
    #[error("decided {0} times and was overtaken each time")]
    Overtaken(usize),
    /// PostgreSQL refused this command's data, and nothing else with it.
    #[error("PostgreSQL refused the command's data")]
    Refused,
    /// The server is going down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// A question about people in numbers takes longer than it may.
    #[error("the question takes too long")]
    TooSlow,
    /// A stored event or state cannot be read.
    #[error("stored data cannot be read: {0}")]
    Undecodable(String),
    /// PostgreSQL cannot be reached or answered with an error.
    #[error("PostgreSQL: {0}")]
    Database(#[from] sqlx::Error),
    /// A migration failed.
    #[error("migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The server is too old or not PostgreSQL.
    #[error("{0}")]
    Unsupported(String),
    /// The policy is refused by the rules.
    #[error("{0}")]
    Policy(#[from] domain::policy::PolicyRefusal),
    /// What is asked of a webhook is refused by the rules.
    #[error("{0}")]
    Webhook(#[from] domain::webhook::WebhookRefusal),
}

impl Error {
    /// The database is away, starting or overfull: the same may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        let Self::Database(error) = self else { return false };
        let Some(database) = error.as_database_error() else {
            return !matches!(error, sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. });
        };
        let code = database.code().unwrap_or_default();
        // Connections, resources, conflicts, interventions and faults of the system, in this order.
        matches!(code.get(..2), Some("08" | "53" | "40" | "55" | "57" | "58"))
    }

    /// Whether a statement was ended because it took longer than it may.
    pub(crate) fn is_cut_off(&self) -> bool {
        let Self::Database(error) = self else { return false };
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        code.as_deref() == Some("57014")
    }
}
