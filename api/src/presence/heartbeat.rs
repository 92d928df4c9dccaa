//! Heartbeats, one and many.

use std::collections::HashMap;
use std::time::Instant as Taken;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use domain::{Command, Outcome, Position, Refusal, SessionId, UserNo, lapse};
use futures::future;
use futures::stream::{self, StreamExt};
use projections::batch::Beat;
use projections::realm::{Consistency, Seen};
use projections::{Asked, Executed};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::done;
use super::sessions::{closed, find};
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{BodyBytes, Json, NoQuery, OptionalJson, Path, parse_json, parse_object};
use crate::limits::{HEARTBEATS_BYTES_MAX, HEARTBEATS_MAX};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{Instant, StatusBody};

/// Plain heartbeats handed in together.
const CHUNK: usize = 1_000;
/// Heartbeats of one session in one request: each waits for the one before it.
const REPEATS_MAX: usize = 8;
/// Heartbeats of one request that go through the aggregate at one time.
const DECIDED_AT_ONCE: usize = 64;

/// A sign of life.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeatBody {
    /// How long the person has been idle, in milliseconds.
    #[serde(default)]
    idle_ms: u32,
}

/// The session lives on.
#[derive(Debug, Serialize, ToSchema)]
pub struct BeatenBody {
    status: StatusBody,
    /// When the session is over without another heartbeat.
    expires_at: Option<Instant>,
    heartbeat_interval_ms: u32,
    position: Position,
    server_time: Instant,
}

/// Keeps a session alive.
#[utoipa::path(post, path = "/v1/sessions/{id}/heartbeat", tag = "Presence",
    operation_id = "send_heartbeat",
    params(("id" = Uuid, Path)), request_body = Option<BeatBody>,
    responses((status = 200, body = BeatenBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 410, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn heartbeat(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Path(session): Path<SessionId>,
    OptionalJson(body): OptionalJson<BeatBody>,
) -> Result<Json<BeatenBody>, Problem> {
    let taken = Taken::now();
    let user = find(&app, &caller, session, &[Role::Service]).await?.live()?;
    let position = beat(&app, &caller, user, session, body.idle_ms, taken).await?;
    let silences = app.realm.silences();
    let look = |seen: Seen<'_>| {
        let expires_at = seen.state.session(session).map(|live| lapse::lease_end(live, &silences));
        (StatusBody::of(seen, App::audience(&caller, seen.user_id)), expires_at)
    };
    let found = app.realm.look(&[user], Consistency::Usual, look).await?.pop().flatten();
    let (status, expires_at) = found.ok_or_else(Problem::user_not_found)?;
    Ok(Json(BeatenBody {
        status,
        expires_at: expires_at.map(Instant),
        heartbeat_interval_ms: app.realm.policy().heartbeat_ms,
        position,
        server_time: Instant(app.realm.now()),
    }))
}

/// One heartbeat: plain where it can be, through the aggregate where it changes anything.
pub(crate) async fn beat(
    app: &App,
    caller: &Caller,
    user: UserNo,
    session: SessionId,
    idle_ms: u32,
    taken: Taken,
) -> Result<Position, Problem> {
    let idle_ms = idle_ms.min(i32::MAX as u32);
    if let Some(beat) = app.realm.plain_beat(user, session, idle_ms, taken)
        && let Some(position) = app.realm.beat(beat).await?
    {
        return Ok(position);
    }
    let actor = Some(app.actor(caller).await?);
    let asked = Asked { actor, taken, ..Asked::by(None) };
    let command = Command::Heartbeat { session, idle_ms };
    let executed = app.realm.execute(user, &command, asked).await?;
    if is_over(&executed) {
        return Err(closed(app, session).await?);
    }
    Ok(done(executed)?.position)
}

fn is_over(executed: &Executed) -> bool {
    match executed {
        Executed::Done(receipt) => receipt.outcome == Outcome::Refused(Refusal::SessionClosed),
        Executed::SessionEnded => true,
        Executed::KeyKnown => false,
    }
}

/// One of many.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchedBeat {
    session_id: Uuid,
    /// How long the person has been idle, in milliseconds.
    #[serde(default)]
    idle_ms: u32,
}

/// What came of many.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchBody {
    /// How many stand in the log.
    accepted: usize,
    /// The others, by their place in the request, counted from 0.
    rejected: Vec<RejectedBeat>,
    position: Position,
}

/// One that does not stand in the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct RejectedBeat {
    index: usize,
    session_id: Uuid,
    code: String,
}

/// Keeps many sessions alive: an array, or one object a line (NDJSON).
#[utoipa::path(post, path = "/v1/heartbeats", tag = "Presence",
    operation_id = "send_heartbeats",
    request_body(content((Vec<BatchedBeat> = "application/json"),
        (String = "application/x-ndjson"))),
    responses((status = 200, body = BatchBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 413, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 415, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn heartbeats(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    headers: HeaderMap,
    BodyBytes(body): BodyBytes<HEARTBEATS_BYTES_MAX>,
) -> Result<Json<BatchBody>, Problem> {
    let taken = Taken::now();
    caller.require(&[Role::Service])?;
    let beats = parse(&headers, &body)?;
    let mut positions: Vec<Option<Position>> = vec![None; beats.len()];
    let mut others = Vec::new();
    // Handed in all at once and in order, so that they may share a batch.
    let mut rejected = Vec::new();
    let chunks =
        plain_chunks(&app, &beats, taken, &mut rejected).into_iter().map(|(plain, again)| {
            others.extend(again);
            let (indexes, plain): (Vec<_>, Vec<_>) = plain.into_iter().unzip();
            let app = &app;
            async move { Ok::<_, Problem>((indexes, app.realm.beats(plain).await?)) }
        });
    let answers = future::try_join_all(chunks.collect::<Vec<_>>()).await?;
    for (index, beaten) in answers.into_iter().flat_map(|(at, beaten)| at.into_iter().zip(beaten)) {
        match beaten {
            Some(position) => positions[index] = Some(position),
            None => others.push(index),
        }
    }
    let decided = stream::iter(others).map(|index| {
        let (app, caller, beat) = (&app, &caller, &beats[index]);
        async move {
            let user = find(app, caller, beat.session_id, &[Role::Service]).await?.live()?;
            self::beat(app, caller, user, beat.session_id, beat.idle_ms, taken).await
        }
        .map_answer(index)
    });
    let mut decided = decided.buffer_unordered(DECIDED_AT_ONCE);
    while let Some((index, answer)) = decided.next().await {
        match answer {
            Ok(position) => positions[index] = Some(position),
            // What cannot be appended now is no verdict about a session.
            Err(problem) if problem.status().is_server_error() => return Err(problem),
            Err(problem) => {
                let session_id = beats[index].session_id;
                rejected.push(RejectedBeat { index, session_id, code: problem.code().to_owned() });
            }
        }
    }
    rejected.sort_by_key(|beat| beat.index);
    let accepted = positions.iter().flatten().count();
    let position = positions.into_iter().flatten().max();
    let position = position.unwrap_or_else(|| app.realm.position());
    Ok(Json(BatchBody { accepted, rejected, position }))
}

/// Pairs a future's answer with its place in the request.
trait MapAnswer: Future + Sized {
    async fn map_answer(self, index: usize) -> (usize, Self::Output) {
        (index, self.await)
    }
}

impl<F: Future> MapAnswer for F {}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Vec<BatchedBeat>, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    let beats: Vec<BatchedBeat> = match content_type {
        Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty())
            .map(parse_object)
            .collect::<Result<_, _>>()?,
        Some("application/json") | None => parse_json(body)?,
        Some(_) => {
            return Err(Problem::unsupported_media_type(
                "heartbeats are application/json (an array) or application/x-ndjson",
            ));
        }
    };
    if beats.len() > HEARTBEATS_MAX {
        let detail = format!("at most {HEARTBEATS_MAX} heartbeats a request");
        return Err(Problem::rule("too_many_heartbeats", detail));
    }
    Ok(beats)
}

type Chunk = (Vec<(usize, Beat)>, Vec<usize>);

/// The plain ones in chunks of different sessions, and the places of all others. A session's second
/// heartbeat belongs to a later batch than its first; one too many of them is put into `rejected`.
fn plain_chunks(
    app: &App,
    beats: &[BatchedBeat],
    taken: Taken,
    rejected: &mut Vec<RejectedBeat>,
) -> Vec<Chunk> {
    let mut layers: Vec<Vec<(usize, Beat)>> = Vec::new();
    let mut others = Vec::new();
    let mut met: HashMap<SessionId, usize> = HashMap::with_capacity(beats.len());
    for (index, beat) in beats.iter().enumerate() {
        let repeats = met.entry(beat.session_id).or_default();
        *repeats += 1;
        if *repeats > REPEATS_MAX {
            let (session_id, code) = (beat.session_id, "too_many_repeats".to_owned());
            rejected.push(RejectedBeat { index, session_id, code });
            continue;
        }
        let idle_ms = beat.idle_ms.min(i32::MAX as u32);
        let owner = app.realm.roster().owner(beat.session_id);
        match owner.and_then(|user| app.realm.plain_beat(user, beat.session_id, idle_ms, taken)) {
            Some(plain) => {
                if layers.len() < *repeats {
                    layers.resize_with(*repeats, Vec::new);
                }
                layers[*repeats - 1].push((index, plain));
            }
            None => others.push(index),
        }
    }
    let mut chunks = vec![(Vec::new(), others)];
    for mut layer in layers {
        while layer.len() > CHUNK {
            let rest = layer.split_off(CHUNK);
            chunks.push((std::mem::replace(&mut layer, rest), Vec::new()));
        }
        chunks.push((layer, Vec::new()));
    }
    chunks.retain(|(plain, others)| !plain.is_empty() || !others.is_empty());
    chunks
}
