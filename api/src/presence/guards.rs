//! Guards: "is the status one of these? then record that the action was allowed", atomically.

use axum::extract::State;
use axum::http::StatusCode;
use domain::command::{Expect, Guard, GuardClaim};
use domain::event::GuardRefusal;
use domain::status::is_plain_name;
use domain::{Command, Outcome, Position, Source, UserId};
use futures::stream::{self, StreamExt};
use projections::history;
use projections::realm::Consistency;
use projections::{Asked, Executed};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::claims::parse_source;
use super::done;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, NoQuery, Path};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::StatusName;

/// Longest key of a guard, in characters.
pub const KEY_LENGTH_MAX: usize = 200;
/// Most guards in one request.
pub const GUARDS_MAX: usize = 500;
/// Guards of one request decided at one time.
const AT_ONCE: usize = 64;

/// What must be so, and what is to be recorded.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardRequest {
    /// The action's name.
    action: String,
    /// The statuses that allow it.
    require: Vec<StatusName>,
    /// Makes the call repeatable for 24 h: the same key hears the same answer.
    key: Option<String>,
    /// A claim that is set or cleared with it.
    claim: Option<GuardClaimRequest>,
    /// Refused unless this is the user's sequence.
    if_sequence: Option<i64>,
}

/// The claim of a guard.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardClaimRequest {
    /// `system:<name>`.
    source: String,
    /// Set to this; null: cleared.
    #[schema(required = true)]
    #[serde(deserialize_with = "present")]
    status: Option<StatusName>,
    /// What must be there before.
    expect: Option<ExpectName>,
}

/// A member that must be there, though it may be null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StatusName>, D::Error> {
    Option::deserialize(deserializer)
}

/// What a guard expects of its claim.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpectName {
    /// The source claims nothing.
    Absent,
    /// The source claims something.
    Present,
}

/// A guard let the action through.
#[derive(Debug, Serialize, ToSchema)]
pub struct AllowedBody {
    allowed: bool,
    /// The status that it saw.
    status: StatusName,
    /// The user's sequence after it.
    sequence: i64,
    position: Position,
}

/// Asks a guard. 409 `status_refused`, `claim_conflict` or `sequence_changed` where it refuses.
#[utoipa::path(post, path = "/v1/users/{id}/guard", tag = "Presence",
    operation_id = "ask_guard",
    params(("id" = String, Path)), request_body = GuardRequest,
    responses((status = 200, body = AllowedBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn guard(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Path(user_id): Path<UserId>,
    Json(request): Json<GuardRequest>,
) -> Result<Json<AllowedBody>, Problem> {
    caller.require(&[Role::Service])?;
    let answer = ask(&app, &caller, &user_id, request, Asked::by(None)).await?;
    answer.refused().map_or_else(|| Ok(Json(answer.body())), Err)
}

/// Many guards.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardsRequest {
    /// At most 500, each decided on its own.
    guards: Vec<NamedGuard>,
}

/// A guard and whom it is about.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)] // Which does not go together with `flatten`.
pub struct NamedGuard {
    user_id: String,
    /// The action's name.
    action: String,
    /// The statuses that allow it.
    require: Vec<StatusName>,
    /// Makes the call repeatable for 24 h: the same key hears the same answer.
    key: Option<String>,
    /// A claim that is set or cleared with it.
    claim: Option<GuardClaimRequest>,
    /// Refused unless this is the user's sequence.
    if_sequence: Option<i64>,
}

impl NamedGuard {
    fn apart(self) -> (String, GuardRequest) {
        let Self { user_id, action, require, key, claim, if_sequence } = self;
        (user_id, GuardRequest { action, require, key, claim, if_sequence })
    }
}

/// What came of many guards, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub struct GuardsBody {
    items: Vec<GuardAnswer>,
    /// The last of their events; the log's head, if there is none.
    position: Position,
}

/// What came of one of many.
#[derive(Debug, Serialize, ToSchema)]
pub struct GuardAnswer {
    user_id: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
}

/// Asks many guards, for a planner's board.
#[utoipa::path(post, path = "/v1/guards", tag = "Presence",
    operation_id = "ask_guards",
    request_body = GuardsRequest,
    responses((status = 200, body = GuardsBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn guards(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Json(request): Json<GuardsRequest>,
) -> Result<Json<GuardsBody>, Problem> {
    caller.require(&[Role::Service])?;
    if request.guards.len() > GUARDS_MAX {
        let detail = format!("at most {GUARDS_MAX} guards at once");
        return Err(Problem::rule("too_many_guards", detail));
    }
    let asked = Asked::by(None);
    let answers = stream::iter(request.guards).map(|named| {
        let (app, caller, asked) = (&app, &caller, asked.clone());
        async move {
            let (user_id, guard) = named.apart();
            let answer = match user_id.parse().map_err(|_| Problem::invalid_user_id()) {
                Ok(user_id) => ask(app, caller, &user_id, guard, asked).await,
                Err(problem) => Err(problem),
            };
            one_of_many(user_id, answer)
        }
    });
    let items: Vec<Result<GuardAnswer, Problem>> = answers.buffered(AT_ONCE).collect().await;
    let items: Vec<GuardAnswer> = items.into_iter().collect::<Result<_, _>>()?;
    let position = items.iter().filter_map(|item| item.position).max();
    let position = position.unwrap_or_else(|| app.realm.position());
    Ok(Json(GuardsBody { items, position }))
}

fn one_of_many(user_id: String, answer: Result<Answer, Problem>) -> Result<GuardAnswer, Problem> {
    match answer {
        // Nobody knows what became of it: the whole call is to be repeated, with its keys.
        Err(problem) if problem.status().is_server_error() => Err(problem),
        Err(problem) => Ok(GuardAnswer {
            user_id,
            allowed: false,
            code: Some(problem.code().to_owned()),
            status: None,
            sequence: None,
            position: None,
        }),
        Ok(answer) => Ok(GuardAnswer {
            user_id,
            allowed: answer.verdict.is_ok(),
            code: answer.verdict.err().map(|refusal| code(refusal).to_owned()),
            status: Some(answer.status),
            sequence: Some(answer.sequence),
            position: Some(answer.position),
        }),
    }
}

/// What a guard decided.
pub(crate) struct Answer {
    pub(crate) verdict: Result<(), GuardRefusal>,
    pub(crate) status: StatusName,
    sequence: i64,
    pub(crate) position: Position,
}

impl Answer {
    fn body(&self) -> AllowedBody {
        let Self { status, sequence, position, .. } = *self;
        AllowedBody { allowed: true, status, sequence, position }
    }

    fn refused(&self) -> Option<Problem> {
        let refusal = self.verdict.err()?;
        let detail = match refusal {
            GuardRefusal::StatusRefused => "the status is none of those required",
            GuardRefusal::ClaimConflict => "the claim is not as expected",
            GuardRefusal::SequenceChanged => "something happened to the user meanwhile",
        };
        let problem = Problem::new(StatusCode::CONFLICT, code(refusal), detail)
            .with("allowed", false)
            .with("current", self.status)
            .with("sequence", self.sequence)
            .with("position", self.position);
        Some(problem)
    }
}

fn code(refusal: GuardRefusal) -> &'static str {
    match refusal {
        GuardRefusal::StatusRefused => "status_refused",
        GuardRefusal::ClaimConflict => "claim_conflict",
        GuardRefusal::SequenceChanged => "sequence_changed",
    }
}

async fn ask(
    app: &App,
    caller: &Caller,
    user_id: &UserId,
    request: GuardRequest,
    asked: Asked,
) -> Result<Answer, Problem> {
    let key = request.key.clone();
    decide(app, caller, user_id, parse(request)?, Asked { key, ..asked }).await
}

/// Asks a guard that is well-formed. Errors: 404; 422 where its key or claim breaks a rule.
pub(crate) async fn decide(
    app: &App,
    caller: &Caller,
    user_id: &UserId,
    guard: Guard,
    asked: Asked,
) -> Result<Answer, Problem> {
    let key = asked.key.clone();
    let question = (guard.action.clone(), guard.require.clone());
    let user = app.known_user(user_id).await?;
    app.status(caller, user, Consistency::Usual).await?; // 404 for a user never seen
    let actor = Some(app.actor(caller).await?);
    let asked = Asked { actor, ..asked };
    let receipt = match app.realm.execute(user, &Command::Guard(guard), asked).await? {
        Executed::KeyKnown => {
            let key = key.unwrap_or_default();
            let found = history::guard_answer(app.realm.pool(), user, &key).await?;
            let (event, followers) =
                found.ok_or_else(|| Problem::internal("a key without answer"))?;
            return replayed(&event, followers, &question, &caller.user_id);
        }
        executed => done(executed)?,
    };
    let Outcome::Guarded { verdict, status } = receipt.outcome else {
        return Err(Problem::internal("a guard without a verdict"));
    };
    let (sequence, position) = (receipt.sequence, receipt.position);
    Ok(Answer { verdict, status: status.into(), sequence, position })
}

/// The answer that the key heard before, for the same question of the same asker.
fn replayed(
    event: &history::LoggedEvent,
    followers: i64,
    (action, require): &(String, Vec<domain::Status>),
    asker: &UserId,
) -> Result<Answer, Problem> {
    let same_action = event.data.get("action").and_then(|value| value.as_str()) == Some(action);
    let required = serde_json::to_value(require).map_err(Problem::internal)?;
    let same_require = event.data.get("require") == Some(&required);
    if !same_action || !same_require || event.actor.as_ref() != Some(asker) {
        return Err(Problem::rule("key_reused", "the key belongs to another question"));
    }
    let verdict = match event.data.get("code") {
        None => Ok(()),
        Some(code) => Err(serde_json::from_value(code.clone()).map_err(Problem::internal)?),
    };
    Ok(Answer {
        verdict,
        status: judged(event)?.into(),
        sequence: event.sequence.unwrap_or_default() + followers,
        position: event.position + followers,
    })
}

/// The status that the guard went by.
fn judged(event: &history::LoggedEvent) -> Result<domain::Status, Problem> {
    match event.data.get("beneath") {
        None => Ok(event.from_status.unwrap_or_default()),
        Some(beneath) => serde_json::from_value(beneath.clone()).map_err(Problem::internal),
    }
}

fn parse(request: GuardRequest) -> Result<Guard, Problem> {
    if !is_plain_name(&request.action) {
        let detail = "action: 1 to 128 of A-Z a-z 0-9 . _ @ : + | - /";
        return Err(Problem::rule("invalid_action", detail));
    }
    if request.require.is_empty() || request.require.len() > domain::Status::ALL.len() {
        return Err(Problem::rule("invalid_require", "require: 1 to 5 statuses"));
    }
    let wrong_key =
        |key: &String| key.is_empty() || key.contains('\0') || key.chars().count() > KEY_LENGTH_MAX;
    if request.key.as_ref().is_some_and(wrong_key) {
        let detail = format!("key: 1 to {KEY_LENGTH_MAX} characters, no NUL");
        return Err(Problem::rule("invalid_key", detail));
    }
    let claim = request.claim.as_ref().map(parse_claim).transpose()?;
    let require = request.require.into_iter().map(domain::Status::from).collect();
    let (action, if_sequence) = (request.action, request.if_sequence);
    Ok(Guard { action, require, claim, if_sequence, overlook: None })
}

fn parse_claim(request: &GuardClaimRequest) -> Result<GuardClaim, Problem> {
    let source = parse_source(&request.source)?;
    if !matches!(source, Source::System(_)) {
        return Err(Problem::forbidden("a guard claims as system:<name>"));
    }
    let expect = request.expect.map(|expect| match expect {
        ExpectName::Absent => Expect::Absent,
        ExpectName::Present => Expect::Present,
    });
    Ok(GuardClaim { source, status: request.status.map(domain::Status::from), expect })
}
