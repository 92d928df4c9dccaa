//! One user's present, from the log.

use std::collections::HashMap;

use domain::{Claim, Position, Presence, Session, SessionId, Silences, Timestamp, UserNo};
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{Connection, Executor, FromRow, PgConnection};

use crate::Error;
use crate::health::fold::{self, Folded};
use crate::health::present::claims_end;
use crate::load::{self, StoredState};
use crate::tail;

/// Transitions that others made meanwhile, before it is given up.
const ATTEMPTS_MAX: usize = 5;

/// When each live session was last heard of by the log, and how long the person had been idle.
type Heard = HashMap<SessionId, (Timestamp, u32)>;

/// Signs of life, as a live row has them.
#[derive(Debug, FromRow)]
struct Sign {
    session_id: SessionId,
    last_seen: Timestamp,
    idle_ms: i32,
    lease_ms: i32,
}

/// What no transition decides: it is kept from the row that is there.
#[derive(Debug, Default)]
struct Kept {
    last_seen: Option<Timestamp>,
    last_activity: Option<Timestamp>,
    state: StoredState,
    signs: HashMap<SessionId, Sign>,
    texts: HashMap<Position, String>,
}

/// Folds a user's present anew. Some: why it is kept as it is.
pub(super) async fn repair(
    db: &mut PgConnection,
    user: UserNo,
    orphans: &[SessionId],
) -> Result<Option<String>, Error> {
    for _ in 0..ATTEMPTS_MAX {
        let mut folded = Folded::default();
        fold::fold(db, (user.0 - 1, user.0), &[], |_, fold| folded = fold).await?;
        if let Some(damage) = folded.findings.first() {
            // By a log with a hole the next sequence would be wrong, and every later event refused.
            return Ok(Some(super::damaged_by(damage)));
        }
        let silences = load::silences(&mut *db).await?;
        // Long stretches are read before anybody has to wait, and the rest while nobody writes.
        let (read_to, _) = tail::newest(&mut *db).await?.unwrap_or_default();
        let mut heard = heard(db, user, &folded, 0).await?;
        let mut alone = db.begin().await?;
        alone.execute("select pg_advisory_xact_lock(append_lock_key())").await?;
        for (session, sign) in self::heard(&mut alone, user, &folded, read_to).await? {
            let newest = heard.entry(session).or_insert(sign);
            *newest = sign.max(*newest);
        }
        let (_, now) = tail::newest(&mut alone).await?.unwrap_or_default();
        let kept = kept(&mut alone, user, &folded, now).await?;
        let sessions = sessions(user, &folded, &kept, &heard, &silences);
        let done: bool = sqlx::query_scalar("select repair_present($1, $2, $3, $4, $5)")
            .bind(user.0)
            .bind(folded.position)
            .bind(row(user, &folded, &kept))
            .bind(Json(sessions))
            .bind(orphans)
            .fetch_one(&mut *alone)
            .await?;
        alone.commit().await?;
        if done {
            tracing::info!(user_no = %user, position = folded.position, "the present folded anew");
            return Ok(None);
        }
    }
    Ok(Some("others keep changing this user".to_owned()))
}

/// Signs of life above a position, of sessions that are live.
async fn heard(
    db: &mut PgConnection,
    user: UserNo,
    folded: &Folded,
    above: Position,
) -> Result<Heard, Error> {
    let live: Vec<SessionId> = folded.state.sessions.iter().map(|session| session.id).collect();
    let opened = live.iter().filter_map(|session| folded.opened.get(session)).min();
    let Some(opened) = opened else { return Ok(Heard::new()) };
    let signs: Vec<(SessionId, Timestamp, Option<i32>)> = sqlx::query_as(
        "select distinct on (session_id) session_id, occurred_at, idle_ms from event
          where class = 'H' and position > $1 and user_no = $2 and session_id = any ($3)
          order by session_id, occurred_at desc, position desc",
    )
    .bind(above.max(*opened))
    .bind(user.0)
    .bind(live)
    .fetch_all(db)
    .await?;
    let idle = |idle_ms: Option<i32>| idle_ms.unwrap_or_default().unsigned_abs();
    Ok(signs.into_iter().map(|(session, at, idle_ms)| (session, (at, idle(idle_ms)))).collect())
}

async fn kept(
    db: &mut PgConnection,
    user: UserNo,
    folded: &Folded,
    now: Timestamp,
) -> Result<Kept, Error> {
    let row: Option<(Option<Timestamp>, Option<Timestamp>, Value)> = sqlx::query_as(
        "select last_seen, last_activity, state from current_status where user_no = $1",
    )
    .bind(user.0)
    .fetch_optional(&mut *db)
    .await?;
    let mut kept = Kept::default();
    if let Some((last_seen, last_activity, state)) = row {
        // Nothing was heard yet of what is still to come.
        kept.last_seen = last_seen.filter(|at| *at <= now);
        kept.last_activity = last_activity.filter(|at| *at <= now);
        // One that cannot be read is among what is to be mended.
        kept.state = serde_json::from_value(state).unwrap_or_default();
    }
    let signs: Vec<Sign> = sqlx::query_as(
        "select session_id, last_seen, idle_ms, lease_ms from live_session where user_no = $1",
    )
    .bind(user.0)
    .fetch_all(&mut *db)
    .await?;
    kept.signs = signs.into_iter().map(|sign| (sign.session_id, sign)).collect();
    let claims: Vec<Position> = folded.claimed.values().copied().collect();
    let texts: Vec<(Position, String)> = sqlx::query_as(
        "select position, detail ->> 'text' from detail
          where position = any ($1) and detail ? 'text'",
    )
    .bind(claims)
    .fetch_all(db)
    .await?;
    kept.texts = texts.into_iter().collect();
    Ok(kept)
}

/// The row of `current_status`, column by column.
fn row(user: UserNo, folded: &Folded, kept: &Kept) -> Value {
    let state: &Presence = &folded.state;
    let text = |claim: &Claim| Claim {
        text: folded.claimed.get(&claim.source).and_then(|at| kept.texts.get(at)).cloned(),
        ..claim.clone()
    };
    let stored = StoredState {
        claims: state.claims.iter().map(text).collect(),
        // What others had been shown before is known by heartbeats: the row's word is better.
        veil: state.veil.clone().map(|veil| kept.state.veil.clone().unwrap_or(veil)),
        imported: state.imported.clone(),
    };
    json!({
        "user_no": user.0,
        "status": state.status,
        "since": state.since,
        "shown_since": state.shown_since,
        "sequence": state.sequence,
        "position": folded.position,
        "changed_at": state.changed_at,
        "own_since": state.own_since,
        "last_seen": kept.last_seen.max(state.last_seen),
        "last_activity": kept.last_activity.max(state.last_activity),
        "live_sessions": state.sessions.len(),
        "invisible": state.invisible,
        "check_at": claims_end(state),
        "state_version": 1,
        "state": stored,
    })
}

/// The rows of `live_session`; `check_at` is computed where they are written.
fn sessions(
    user: UserNo,
    folded: &Folded,
    kept: &Kept,
    heard: &Heard,
    silences: &Silences,
) -> Vec<Value> {
    let row = |session: &Session| {
        let opened = folded.opened.get(&session.id).copied().unwrap_or_default();
        let session = signed(session, kept.signs.get(&session.id), heard, folded, silences);
        json!({
            "session_id": session.id,
            "user_no": user.0,
            "opened_at": session.opened_at,
            "last_seen": session.last_seen,
            "check_at": session.last_seen,
            "opened_position": opened,
            "lease_ms": session.lease_ms,
            "idle_ms": session.idle_ms,
            "away_after_ms": session.away_after_ms,
            "kind": session.kind,
            "active": session.active,
        })
    };
    folded.state.sessions.iter().map(row).collect()
}

/// A session with its last sign of life, which the log decides; of the row that is there, if any,
/// what the log does not say. Where the row was lost or wrong and the lease was over before the
/// user's last transition, nobody was there to record that, and history must not run backwards: it
/// runs anew from that transition.
fn signed(
    session: &Session,
    row: Option<&Sign>,
    heard: &Heard,
    folded: &Folded,
    silences: &Silences,
) -> Session {
    let mut session = session.clone();
    if let Some((at, idle_ms)) = heard.get(&session.id) {
        session.beat(*at, *idle_ms);
    }
    if let Some(row) = row {
        session.lease_ms = row.lease_ms.unsigned_abs();
        if row.last_seen == session.last_seen {
            session.idle_ms = row.idle_ms.unsigned_abs();
            return session;
        }
    }
    let over = silences.deadline(session.last_seen, session.lease_ms);
    if let Some(changed_at) = folded.state.changed_at.filter(|changed_at| over < *changed_at) {
        session.last_seen = changed_at;
    }
    session
}
