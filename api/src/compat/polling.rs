//! Clients that call whenever the person does something, and ask how others are.
//!
//! A `PUT` is an interaction: it opens the device's session or keeps it up, and sets what it says.
//! A `GET` is none. The session is interaction-driven: idle and over by itself, after the policy's
//! `interaction_away_after_ms` and `interaction_lease_ms`. What the user has set yields once idle,
//! save `dnd`. This system has no `busy`: it goes out as `dnd`.

use std::collections::BTreeMap;

use axum::extract::State;
use domain::command::SetClaim;
use domain::{Command, DeviceKind, Source, Status, Timestamp, UserId, UserNo};
use projections::realm::{Consistency, Seen};
use projections::{Asked, history};
use serde::Serialize;
use serde_json::Map;
use utoipa::ToSchema;

use super::activity::{self, Device};
use super::fields::{Fields, Given};
use super::shape::{Said, Shape};
use super::wire::WireId;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, Path};
use crate::presence::sessions::DEVICE_TEXT_LENGTH_MAX;
use crate::presence::{done, plain_text};
use crate::problem::Problem;
use crate::shapes::{Instant, StatusBody, StatusName};

/// How this system tells an error.
pub(crate) const SHAPE: Shape = Shape::of::<PollingError>(|said: Said| {
    Map::from_iter([
        ("error".to_owned(), said.code.into()),
        ("message".to_owned(), said.detail.into()),
    ])
});

/// An error as this system tells it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what the shape makes")]
pub(crate) struct PollingError {
    error: String,
    message: String,
}

/// What the person did, and what it shall mean.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what is read from JSON or a form")]
#[schema(as = PollingRequest)]
struct InteractionRequest {
    /// Null takes it back; where it is not there, it stays.
    manual_status: Option<ManualStatus>,
    invisible: Option<bool>,
    /// One device a token, if not given.
    device_id: Option<WireId>,
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what is read from JSON or a form")]
#[schema(rename_all = "snake_case")]
enum ManualStatus {
    Online,
    Away,
    Busy,
    Dnd,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PollingStatus)]
pub(crate) struct PolledBody {
    user_id: WireId,
    status: StatusName,
    last_seen: Option<Instant>,
    /// For oneself.
    #[serde(flatten)]
    #[schema(value_type = OwnBody)]
    own: Option<OwnBody>,
}

/// What users see of themselves besides.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PollingOwn)]
struct OwnBody {
    #[schema(required = false)]
    manual_status: Option<StatusName>,
    #[schema(required = false)]
    invisible: bool,
    #[schema(required = false)]
    devices: Vec<PolledDevice>,
}

/// One of one's devices.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PollingDevice)]
struct PolledDevice {
    /// Its own name, else its session's.
    id: WireId,
    last_seen: Instant,
}

/// What a `PUT` asks for.
struct Interaction {
    manual: Option<Given<Status>>,
    invisible: Option<bool>,
    device: Option<String>,
}

/// Says that the person did something.
#[utoipa::path(put, path = "/api/status", tag = "Compatibility",
    operation_id = "polling_put_status",
    request_body(content((InteractionRequest = "application/json"),
        (InteractionRequest = "application/x-www-form-urlencoded"))),
    responses((status = 200, body = PolledBody)))]
pub(crate) async fn put(
    State(app): State<App>,
    caller: Caller,
    fields: Fields,
) -> Result<Json<PolledBody>, Problem> {
    caller.require(&[Role::User, Role::Service, Role::Admin])?;
    let asked = Interaction::parse(&fields)?;
    let user = app.actor(&caller).await?;
    // Before the session, so that nobody sees a moment of what the person does not want to show.
    if let Some(invisible) = asked.invisible {
        execute(&app, user, &Command::SetVisibility { invisible }).await?;
    }
    match asked.manual {
        Some(Given::Value(status)) => set_manual(&app, user, status).await?,
        Some(Given::Null) => {
            execute(&app, user, &Command::ClearClaim { source: Source::Manual }).await?;
        }
        None => {}
    }
    let device = Device {
        system: "polling",
        kind: DeviceKind::Other,
        id: asked.device.as_deref(),
        interaction_driven: true,
    };
    activity::note(&app, &caller, &device).await?;
    own_view(&app, &caller, user).await.map(Json)
}

/// How a user is.
#[utoipa::path(get, path = "/api/status/{user_id}", tag = "Compatibility",
    operation_id = "polling_get_status", params(("user_id" = String, Path)),
    responses((status = 200, body = PolledBody, description = "One never seen is offline")))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(user_id): Path<UserId>,
) -> Result<Json<PolledBody>, Problem> {
    // A number that nobody has: looked up like the others, and found nowhere.
    let user = app.realm.names().find(&user_id).await?.unwrap_or_default();
    if caller.is(&user_id) {
        return own_view(&app, &caller, user).await.map(Json);
    }
    let look = |seen: Seen<'_>| StatusBody::of(seen, App::audience(&caller, seen.user_id));
    let found = app.realm.look(&[user], Consistency::Usual, look).await?.pop().flatten();
    let (status, last_seen) =
        found.map_or((StatusName::Offline, None), |found| (found.status, found.last_seen));
    Ok(Json(PolledBody::of(&user_id, status, last_seen, None)))
}

impl PolledBody {
    fn of(
        user_id: &UserId,
        status: StatusName,
        last_seen: Option<Instant>,
        own: Option<OwnBody>,
    ) -> Self {
        let status = match status {
            StatusName::Busy => StatusName::Dnd,
            StatusName::Online | StatusName::Away | StatusName::Dnd | StatusName::Offline => status,
        };
        Self { user_id: WireId::from(user_id.as_str()), status, last_seen, own }
    }
}

impl Interaction {
    fn parse(fields: &Fields) -> Result<Self, Problem> {
        let wrong = || {
            let detail = "manual_status is null or one of online, away, busy, dnd";
            Problem::bad_request("invalid_manual_status", detail)
        };
        let manual = match fields.text("manual_status")? {
            None => None,
            Some(Given::Null) => Some(Given::Null),
            Some(Given::Value(word)) => match word.to_ascii_lowercase().parse() {
                Ok(Status::Offline) | Err(_) => return Err(wrong()),
                Ok(status) => Some(Given::Value(status)),
            },
        };
        let device = match fields.text("device_id")? {
            Some(Given::Value(id)) => plain_text("device_id", Some(id), DEVICE_TEXT_LENGTH_MAX)?,
            Some(Given::Null) | None => None,
        };
        Ok(Self { manual, invisible: fields.flag("invisible")?, device })
    }
}

async fn execute(app: &App, user: UserNo, command: &Command) -> Result<(), Problem> {
    done(app.realm.execute(user, command, Asked::by(Some(user))).await?)?;
    Ok(())
}

/// Many clients repeat it with each interaction: only a change is written.
async fn set_manual(app: &App, user: UserNo, status: Status) -> Result<(), Problem> {
    let while_active = status != Status::Dnd;
    let so = |seen: Seen<'_>| {
        let claim = seen.state.claim(&Source::Manual);
        claim.is_some_and(|claim| {
            (claim.status, claim.while_active, claim.expires_at, &claim.text)
                == (status, while_active, None, &None)
        })
    };
    let found = app.realm.look(&[user], Consistency::Usual, so).await?;
    if found.into_iter().flatten().any(|so| so) {
        return Ok(());
    }
    let (source, expires, text) = (Source::Manual, None, None);
    let claim = SetClaim { source, status, while_active, expires, text };
    execute(app, user, &Command::SetClaim(claim)).await
}

/// A user's own view, with every node's heartbeats.
async fn own_view(app: &App, caller: &Caller, user: UserNo) -> Result<PolledBody, Problem> {
    let details = history::devices(app.realm.pool(), user).await?;
    let name = |session: domain::SessionId| {
        let detail = details.iter().find(|(id, ..)| *id == session)?.2.as_ref()?;
        detail.get("device_id")?.as_str().map(str::to_owned)
    };
    let look = |seen: Seen<'_>| {
        // Of one device with several tokens the latest counts.
        let mut devices: BTreeMap<WireId, Timestamp> = BTreeMap::new();
        for live in &seen.state.sessions {
            let id = name(live.id).unwrap_or_else(|| live.id.to_string());
            let last_seen = devices.entry(WireId::from(id.as_str())).or_insert(live.last_seen);
            *last_seen = live.last_seen.max(*last_seen);
        }
        let device = |(id, at)| PolledDevice { id, last_seen: Instant(at) };
        let own = OwnBody {
            manual_status: seen.state.claim(&Source::Manual).map(|claim| claim.status.into()),
            invisible: seen.state.invisible,
            devices: devices.into_iter().map(device).collect(),
        };
        let status = StatusBody::of(seen, App::audience(caller, seen.user_id));
        PolledBody::of(seen.user_id, status.status, status.last_seen, Some(own))
    };
    let found = app.realm.look(&[user], Consistency::Strong, look).await?.pop().flatten();
    Ok(found.unwrap_or_else(|| {
        let own = OwnBody { manual_status: None, invisible: false, devices: Vec::new() };
        PolledBody::of(&caller.user_id, StatusName::Offline, None, Some(own))
    }))
}
