//! Whether what clients were told is true: read from the tables, as an auditor would.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::load::{Ack, Ledger, Track};
use super::wait::until;
use crate::{cluster, invariants};

/// Recovery after a crash.
const ANSWER_MAX: Duration = Duration::from_mins(1);

/// A look into the database, past the server.
#[derive(Debug)]
pub struct Audit(PgPool);

impl Audit {
    /// With the owner's URL, once the database answers.
    pub async fn connect(url: &str) -> Self {
        let search = [("search_path", cluster::SEARCH_PATH), ("timezone", "UTC")];
        let options = PgConnectOptions::from_str(url).unwrap().options(search);
        until("the database answers", ANSWER_MAX, async || {
            PgConnection::connect_with(&options).await.ok()
        })
        .await;
        Self(PgPoolOptions::new().max_connections(2).connect_lazy_with(options))
    }

    /// The way itself, for what is asked once.
    pub fn pool(&self) -> &PgPool {
        &self.0
    }

    /// Counts the events of a type.
    pub async fn count(&self, event: &str) -> i64 {
        sqlx::query_scalar("select count(*) from event where type::text = $1")
            .bind(event)
            .fetch_one(&self.0)
            .await
            .unwrap()
    }

    /// How long ago the newest batch was appended, in seconds.
    pub async fn silent_for(&self) -> f64 {
        let seconds = "select extract(epoch from clock_timestamp() - max(recorded_at))::float8
                       from batch";
        sqlx::query_scalar(seconds).fetch_one(&self.0).await.unwrap()
    }

    /// Every acknowledged event is in the log, once, at the position that was told; and whoever
    /// did not ask to leave is here.
    pub async fn kept(&self, ledger: &Ledger) {
        assert_eq!(ledger.wrong, Vec::<String>::new(), "answers that should not have been");
        self.acknowledged(&ledger.acks).await;
    }

    async fn acknowledged(&self, acks: &[Ack]) {
        let positions: Vec<i64> = acks.iter().map(|ack| ack.position).collect();
        let rows: Vec<(i64, String, Option<Uuid>)> = sqlx::query_as(
            "select position, type::text, session_id from event where position = any($1)",
        )
        .bind(&positions)
        .fetch_all(&self.0)
        .await
        .unwrap();
        let mut found = HashMap::new();
        for (position, event, session) in rows {
            let twice = found.insert(position, (event, session));
            assert_eq!(twice, None, "two events at position {position}");
        }
        for ack in acks {
            let expected = (ack.kind.event().to_owned(), Some(ack.session));
            assert_eq!(found.get(&ack.position), Some(&expected), "acknowledged: {ack:?}");
        }
    }

    /// Of those sessions, the ones that are not live.
    pub async fn gone(&self, sessions: &[Uuid]) -> Vec<Uuid> {
        sqlx::query_scalar(
            "select s from unnest($1) s
             where not exists (select from live_session l where l.session_id = s)",
        )
        .bind(sessions)
        .fetch_all(&self.0)
        .await
        .unwrap()
    }

    /// Nothing is in the log twice, and nothing that nobody sent.
    pub async fn nothing_twice(&self, ledger: &Ledger) {
        let twice: Vec<(Uuid, String, i64)> = sqlx::query_as(
            "select session_id, type::text, count(*) from event
             where type in ('session_opened', 'session_closed', 'session_expired')
             group by 1, 2 having count(*) > 1",
        )
        .fetch_all(&self.0)
        .await
        .unwrap();
        assert_eq!(twice, [], "events that are in the log more than once");
        let beats: Vec<(Uuid, i64)> = sqlx::query_as(
            "select session_id, count(*) from event where type = 'heartbeat' group by 1",
        )
        .fetch_all(&self.0)
        .await
        .unwrap();
        let unknown = Track::default();
        for (session, count) in beats {
            let track = ledger.sessions.get(&session).unwrap_or(&unknown);
            let range = track.beats_acked..=track.beats_sent;
            assert!(range.contains(&count), "{count} heartbeats of {session}: {track:?}");
        }
    }

    /// Everything that must hold once the clients have stopped.
    pub async fn holds(&self, ledger: &Ledger) {
        self.kept(ledger).await;
        self.nothing_twice(ledger).await;
        let gone = self.gone(&ledger.live()).await;
        assert_eq!(gone, Vec::<Uuid>::new(), "sessions that were live, and nobody ended them");
        invariants::check(&self.0, &[]).await;
    }
}
