//! The workflow planner: "may this timer start?", asked by its backend.
//!
//! A timer is the claim `system:timer:<task_id>`. `start` and `resume` set it to busy and expect it
//! to be absent, so that a task has one open timer at most; `pause` and `stop` clear it and may be
//! repeated. Each is one guard, decided and recorded in one transaction.
//!
//! Which status counts: the planner knows nothing of `busy`, its default requirement is `online`.
//! So the status is judged *beneath* all timers: who is online and has a timer running may pause
//! and stop it, and start the next, as ever. Busy for another reason (one's own word, a call) is
//! busy, and who is away or offline is told so, whatever timers run, by `stop` too; a planner that
//! wants to stop the timers of people who have left says so in `required_status`. The visible
//! status is good enough, too: `required_status: "busy"` matches a running timer. Where the status
//! beneath decided, the event in the trail has it as `beneath`.

use axum::extract::State;
use domain::command::{Expect, Guard, GuardClaim};
use domain::event::GuardRefusal;
use domain::status::is_plain_name;
use domain::{Position, Source, Status, UserId};
use projections::Asked;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::fields::Fields;
use super::shape::{Said, Shape};
use super::wire::WireId;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::Json;
use crate::presence::guards;
use crate::problem::Problem;
use crate::shapes::StatusName;

/// What all timers' claims begin with.
const TIMERS: &str = "system:timer:";

/// How the planner tells an error.
pub(crate) const SHAPE: Shape = Shape::of::<PlannerError>(tell);

fn tell(said: Said) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("success".to_owned(), false.into());
    body.insert("error".to_owned(), said.title.into());
    body.insert("message".to_owned(), said.detail.into());
    body.insert("code".to_owned(), said.code.into());
    body
}

/// An error as the planner tells it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `tell` makes")]
pub(crate) struct PlannerError {
    success: bool,
    error: String,
    message: String,
    code: String,
}

/// What happens to a timer.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what is read from JSON or a form")]
#[schema(as = PlannerRequest)]
struct WorkflowRequest {
    action: Action,
    user_id: WireId,
    task_id: WireId,
    /// `online`, if not given.
    required_status: Option<Required>,
}

/// What a planner does with a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(as = PlannerAction, rename_all = "snake_case")]
enum Action {
    Start,
    Pause,
    Resume,
    Stop,
}

impl Action {
    const ALL: [Self; 4] = [Self::Start, Self::Pause, Self::Resume, Self::Stop];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
        }
    }

    fn claim(self, source: Source) -> GuardClaim {
        match self {
            Self::Start | Self::Resume => {
                let (status, expect) = (Some(Status::Busy), Some(Expect::Absent));
                GuardClaim { source, status, expect }
            }
            Self::Pause | Self::Stop => GuardClaim { source, status: None, expect: None },
        }
    }
}

/// One status or several, as they were asked for.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = RequiredStatus)]
#[serde(untagged)]
pub(crate) enum Required {
    One(StatusName),
    Several(Vec<StatusName>),
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlannerAnswer)]
#[serde(untagged)]
pub(crate) enum WorkflowAnswer {
    /// Done.
    Done {
        /// `true`
        success: bool,
        /// The status that it was decided by.
        status: StatusName,
        /// Where it stands in the log.
        position: Position,
    },
    /// Not done.
    Refused {
        /// `false`
        success: bool,
        /// `Invalid user status`, or `Timer already running`.
        error: &'static str,
        /// The status that it was decided by.
        current_status: StatusName,
        /// What was required.
        required_status: Required,
        /// What was found and what was required, for people.
        message: String,
    },
}

/// Starts, pauses, resumes or stops a timer, if the user's status is as required.
#[utoipa::path(post, path = "/api/daily_planner_workflow", tag = "Compatibility",
    operation_id = "planner_workflow",
    request_body(content((WorkflowRequest = "application/json"),
        (WorkflowRequest = "application/x-www-form-urlencoded"))),
    responses((status = 200, body = WorkflowAnswer, description = "Done; or refused, with \
        `success: false`")))]
pub(crate) async fn workflow(
    State(app): State<App>,
    caller: Caller,
    fields: Fields,
) -> Result<Json<WorkflowAnswer>, Problem> {
    carry_out(&app, &caller, &fields).await
}

/// The same under the name that it once had.
#[utoipa::path(post, path = "/api/daily_planner_workflow.php", tag = "Compatibility",
    operation_id = "planner_workflow_php",
    request_body(content((WorkflowRequest = "application/json"),
        (WorkflowRequest = "application/x-www-form-urlencoded"))),
    responses((status = 200, body = WorkflowAnswer, description = "Done; or refused, with \
        `success: false`")))]
pub(crate) async fn workflow_php(
    State(app): State<App>,
    caller: Caller,
    fields: Fields,
) -> Result<Json<WorkflowAnswer>, Problem> {
    carry_out(&app, &caller, &fields).await
}

async fn carry_out(
    app: &App,
    caller: &Caller,
    fields: &Fields,
) -> Result<Json<WorkflowAnswer>, Problem> {
    let asked = Asked::by(None);
    caller.require(&[Role::Service])?;
    let word = fields.required("action")?.to_ascii_lowercase();
    let action = Action::ALL.into_iter().find(|action| action.as_str() == word);
    let action = action.ok_or_else(|| {
        Problem::bad_request("invalid_action", "action is one of start, pause, resume, stop")
    })?;
    let (user, task) = (fields.required("user_id")?, fields.required("task_id")?);
    let source = source_of(&task)?;
    let (required, require) = required(fields)?;
    let guard = Guard {
        action: action.as_str().to_owned(),
        require,
        claim: Some(action.claim(source)),
        if_sequence: None,
        overlook: Some(TIMERS),
    };
    let asked = Asked { detail: Some(json!({ "task_id": task })), ..asked };
    let decided = match user.parse::<UserId>() {
        Ok(user) => guards::decide(app, caller, &user, guard, asked).await,
        Err(_) => Err(Problem::user_not_found()), // Nobody can have that name.
    };
    let answer = match decided {
        Ok(answer) => answer,
        Err(problem) if problem.code() == "user_not_found" => {
            let found = format!("user {user} is not known, so offline");
            return Ok(Json(invalid_status(action, StatusName::Offline, required, &found)));
        }
        Err(problem) => return Err(problem),
    };
    let status = answer.status;
    Ok(Json(match answer.verdict {
        Ok(()) => WorkflowAnswer::Done { success: true, status, position: answer.position },
        Err(GuardRefusal::StatusRefused) => {
            let found = format!("user {user} is {}", Status::from(status));
            invalid_status(action, status, required, &found)
        }
        Err(GuardRefusal::ClaimConflict) => WorkflowAnswer::Refused {
            success: false,
            error: "Timer already running",
            current_status: status,
            required_status: required,
            message: format!(
                "task {task} has an open timer of user {user}; pause or stop it first"
            ),
        },
        Err(GuardRefusal::SequenceChanged) => {
            return Err(Problem::internal("a guard without a sequence"));
        }
    }))
}

fn source_of(task: &str) -> Result<Source, Problem> {
    let wrong = || {
        let detail = "task_id: up to 122 of A-Z a-z 0-9 . _ @ : + | - /";
        Problem::bad_request("invalid_task_id", detail)
    };
    let source = format!("{TIMERS}{task}");
    let name = source.strip_prefix("system:").filter(|name| is_plain_name(name));
    name.map(|name| Source::System(name.into())).ok_or_else(wrong)
}

fn required(fields: &Fields) -> Result<(Required, Vec<Status>), Problem> {
    const NAME: &str = "required_status";
    let Some(words) = fields.texts(NAME)? else {
        return Ok((Required::One(StatusName::Online), vec![Status::Online]));
    };
    let wrong = || {
        let detail = "required_status is one or a list of online, away, busy, dnd, offline";
        Problem::bad_request("invalid_required_status", detail)
    };
    let mut require = Vec::new();
    for word in words {
        let status: Status = word.to_ascii_lowercase().parse().map_err(|_| wrong())?;
        if !require.contains(&status) {
            require.push(status);
        }
    }
    let required = match require.as_slice() {
        [] => return Err(wrong()),
        [one] if !fields.is_list(NAME) => Required::One((*one).into()),
        several => Required::Several(several.iter().map(|status| (*status).into()).collect()),
    };
    Ok((required, require))
}

fn invalid_status(
    action: Action,
    current_status: StatusName,
    required_status: Required,
    found: &str,
) -> WorkflowAnswer {
    let word = |status: &StatusName| Status::from(*status).to_string();
    let wanted = match &required_status {
        Required::One(status) => word(status),
        Required::Several(statuses) => statuses.iter().map(word).collect::<Vec<_>>().join(" or "),
    };
    let message = format!("{found}; to {} this timer requires {wanted}", action.as_str());
    let error = "Invalid user status";
    WorkflowAnswer::Refused { success: false, error, current_status, required_status, message }
}
