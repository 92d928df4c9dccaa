//! The chat: logins, heartbeats, and what its administrators see and set.
//!
//! Any request with a token is activity of its bearer. What the chat knows as `online` are
//! `online`, `busy` and `dnd`. Administrators (and services) are told the truth about invisible
//! users.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use domain::command::{Open, SetClaim};
use domain::{Audience, Command, DeviceKind, Reason, Source, Status, UserId, UserNo};
use projections::realm::{Consistency, Seen};
use projections::{Asked, history};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use utoipa::{IntoParams, ToSchema};

use super::activity::{self, Device};
use super::fields::Fields;
use super::shape::{Said, Shape};
use super::wire::WireId;
use crate::app::App;
use crate::auth::{self, Caller, Role};
use crate::extract::{BodyBytes, Json, Path, Query};
use crate::limits::BODY_BYTES_MAX;
use crate::presence::{done, sessions};
use crate::problem::Problem;
use crate::shapes::{Instant, StatusBody, StatusName};

/// Users of a page where `per_page` is not given.
const PER_PAGE_DEFAULT: usize = 20;
/// Most users of a page; who asks for more gets these, and is told so by `per_page`.
const PER_PAGE_MAX: usize = 1_000;
/// Most users of a list without pages; `count` tells of the others.
const USERS_MAX: usize = 10_000;
/// Who may look at others and set them.
const MAY_LOOK: &[Role] = &[Role::Admin, Role::Service];

/// A chat's token has one session.
const BROWSER: Device<'static> =
    Device { system: "chat", kind: DeviceKind::Web, id: None, interaction_driven: false };

/// How the chat tells an error.
pub(crate) const SHAPE: Shape = Shape::of::<ChatError>(|said: Said| {
    Map::from_iter([
        ("detail".to_owned(), said.detail.into()),
        ("code".to_owned(), said.code.into()),
    ])
});

/// An error as the chat tells it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what the shape makes")]
pub(crate) struct ChatError {
    detail: String,
    code: String,
}

/// How a user is, in the chat's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnlineStatus {
    /// There, or busy, or not to be disturbed.
    Online,
    /// There, and idle.
    Away,
    /// Not there.
    Offline,
}

impl From<StatusName> for OnlineStatus {
    fn from(status: StatusName) -> Self {
        match status {
            StatusName::Online | StatusName::Busy | StatusName::Dnd => Self::Online,
            StatusName::Away => Self::Away,
            StatusName::Offline => Self::Offline,
        }
    }
}

/// A user of the chat.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatUser {
    id: WireId,
    /// What the user's token last said, else the id.
    username: String,
    online_status: OnlineStatus,
    last_seen: Option<Instant>,
}

/// Users of the chat.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatUsers {
    users: Vec<ChatUser>,
    /// How many there are, those on other pages included.
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_page: Option<usize>,
}

/// A login without a login service.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoggedIn {
    /// The token that was sent.
    token: String,
    user: ChatUser,
}

/// Logs in: passed on to the chat's own login where there is one, else by a token of ours.
#[utoipa::path(post, path = "/api/users/login/", tag = "Compatibility",
    operation_id = "chat_login", security((), ("token" = [])),
    request_body(content((serde_json::Value = "application/json"),
        (String = "application/x-www-form-urlencoded"))),
    responses((status = 200, body = LoggedIn, description = "Or what the chat's login answers"),
        (status = 502, body = ChatError, description = "The chat's login cannot be used"),
        (status = 504, body = ChatError, description = "The chat's login takes too long")))]
pub(crate) async fn login(
    State(app): State<App>,
    headers: HeaderMap,
    BodyBytes(body): BodyBytes<BODY_BYTES_MAX>,
) -> Result<Response, Problem> {
    if let Some(service) = &app.compat.login {
        let answered = service.pass_on(&headers, body).await?;
        if let Some(caller) = answered.caller(&app).await {
            activity::note(&app, &caller, &BROWSER).await?;
        }
        return Ok(answered.into_response());
    }
    let caller = app.auth.admit(&headers).await?;
    let token = auth::bearer(&headers)?.to_owned();
    activity::note(&app, &caller, &BROWSER).await?;
    let user = own(&app, &caller).await?;
    Ok(Json(LoggedIn { token, user }).into_response())
}

/// Ends the session and revokes the token.
#[utoipa::path(post, path = "/api/users/logout/", tag = "Compatibility",
    operation_id = "chat_logout", responses((status = 200, body = ChatUser)))]
pub(crate) async fn logout(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<ChatUser>, Problem> {
    // Ended first, so that it can be asked for again where the log does not answer; and once more
    // for what a request beside this one has opened before the token was revoked.
    activity::end(&app, &caller, &BROWSER).await?;
    sessions::revoke(&app, &caller).await?;
    activity::end(&app, &caller, &BROWSER).await?;
    let user = app.actor(&caller).await?;
    if own_claim(&app, user).await? {
        clear_claim(&app, user, user).await?;
    }
    own(&app, &caller).await.map(Json)
}

/// Says that the user is there.
#[utoipa::path(post, path = "/api/users/heartbeat/", tag = "Compatibility",
    operation_id = "chat_heartbeat", responses((status = 200, body = ChatUser)))]
pub(crate) async fn heartbeat(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<ChatUser>, Problem> {
    activity::note(&app, &caller, &BROWSER).await?;
    own(&app, &caller).await.map(Json)
}

/// Which page is meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Users of a page: 1 to 1000, 20 if not given.
    #[param(value_type = Option<u32>, minimum = 1)]
    per_page: Option<String>,
    /// Counted from 1.
    #[param(value_type = Option<u32>, minimum = 1)]
    page: Option<String>,
}

impl PageQuery {
    fn number(name: &str, text: Option<&str>, default: usize) -> Result<usize, Problem> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| Problem::invalid_parameter(format!("{name} is a whole number from 1")))
    }

    /// (page, `per_page`)
    fn parse(&self) -> Result<(usize, usize), Problem> {
        let per_page =
            Self::number("per_page", self.per_page.as_deref(), PER_PAGE_DEFAULT)?.min(PER_PAGE_MAX);
        Ok((Self::number("page", self.page.as_deref(), 1)?, per_page))
    }
}

/// Everybody ever seen.
#[utoipa::path(get, path = "/api/users/all-users/", tag = "Compatibility",
    operation_id = "chat_all_users", responses((status = 200, body = ChatUsers)))]
pub(crate) async fn all_users(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<ChatUsers>, Problem> {
    may_look(&app, &caller).await?;
    listed(&app, &caller, None, |_| true).await.map(Json)
}

/// Everybody ever seen, by pages.
#[utoipa::path(get, path = "/api/users/admin/users/", tag = "Compatibility", params(PageQuery),
    operation_id = "chat_users", responses((status = 200, body = ChatUsers)))]
pub(crate) async fn users(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<ChatUsers>, Problem> {
    may_look(&app, &caller).await?;
    listed(&app, &caller, Some(query.parse()?), |_| true).await.map(Json)
}

/// Those who are `online`.
#[utoipa::path(get, path = "/api/users/admin/users/online/", tag = "Compatibility",
    operation_id = "chat_online_users", responses((status = 200, body = ChatUsers)))]
pub(crate) async fn online_users(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<ChatUsers>, Problem> {
    may_look(&app, &caller).await?;
    listed(&app, &caller, None, |status| status == OnlineStatus::Online).await.map(Json)
}

/// One user.
#[utoipa::path(get, path = "/api/users/admin/users/{id}/online-status/", tag = "Compatibility",
    operation_id = "chat_online_status", params(("id" = String, Path)),
    responses((status = 200, body = ChatUser)))]
pub(crate) async fn online_status(
    State(app): State<App>,
    caller: Caller,
    Path(user_id): Path<UserId>,
) -> Result<Json<ChatUser>, Problem> {
    may_look(&app, &caller).await?;
    let user = app.known_user(&user_id).await?;
    one(&app, &caller, user).await.map(Json)
}

/// What a user's status shall be.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what is read from JSON or a form")]
#[schema(as = SetOnlineStatus)]
struct SetRequest {
    status: OnlineStatus,
}

/// Sets a user's status: `away` until it is set again or the user logs out; `online` takes that
/// back, and opens a session where there is none; `offline` takes it back and ends all sessions.
#[utoipa::path(post, path = "/api/users/admin/users/{id}/set-online-status/",
    tag = "Compatibility", operation_id = "chat_set_online_status",
    params(("id" = String, Path)),
    request_body(content((SetRequest = "application/json"),
        (SetRequest = "application/x-www-form-urlencoded"))),
    responses((status = 200, body = ChatUser)))]
pub(crate) async fn set_online_status(
    State(app): State<App>,
    caller: Caller,
    Path(user_id): Path<UserId>,
    fields: Fields,
) -> Result<Json<ChatUser>, Problem> {
    activity::note(&app, &caller, &BROWSER).await?;
    caller.require(&[Role::Admin])?;
    let word = fields.required("status")?.to_ascii_lowercase();
    let user = app.known_user(&user_id).await?;
    let state = |seen: Seen<'_>| (seen.state.sequence, seen.state.sessions.len());
    let found = app.realm.look(&[user], Consistency::Usual, state).await?.pop().flatten();
    let (sequence, sessions) = found.ok_or_else(Problem::user_not_found)?;
    let actor = app.actor(&caller).await?;
    match word.as_str() {
        "away" => {
            let claim = SetClaim {
                source: Source::Admin,
                status: Status::Away,
                while_active: false,
                expires: None,
                text: None,
            };
            execute(&app, user, actor, &Command::SetClaim(claim)).await?;
        }
        "online" => {
            clear_claim(&app, user, actor).await?;
            if sessions == 0 {
                // Two who set it at once mean one session.
                let nth = sequence.to_string();
                let session = activity::name_of(&["set-online", &user.to_string(), &nth]);
                let (kind, idle_ms, interaction_driven) = (DeviceKind::Other, 0, false);
                let open = Open { session, kind, idle_ms, interaction_driven };
                execute(&app, user, actor, &Command::Open(open)).await?;
            }
        }
        "offline" => {
            let end = Command::CloseAll { reason: Reason::AdminReset };
            execute(&app, user, actor, &end).await?;
            clear_claim(&app, user, actor).await?;
        }
        _ => {
            let detail = "status is one of online, away, offline";
            return Err(Problem::bad_request("invalid_status", detail));
        }
    }
    one(&app, &caller, user).await.map(Json)
}

async fn execute(app: &App, user: UserNo, actor: UserNo, command: &Command) -> Result<(), Problem> {
    let detail = (user != actor).then(|| json!({ "reason": "set in the chat's administration" }));
    let asked = Asked { detail, ..Asked::by(Some(actor)) };
    done(app.realm.execute(user, command, asked).await?)?;
    Ok(())
}

async fn clear_claim(app: &App, user: UserNo, actor: UserNo) -> Result<(), Problem> {
    execute(app, user, actor, &Command::ClearClaim { source: Source::Admin }).await
}

/// Whether an administrator holds the user `away`, as set here: without end and without words.
async fn own_claim(app: &App, user: UserNo) -> Result<bool, Problem> {
    let look = |seen: Seen<'_>| {
        let claim = seen.state.claim(&Source::Admin);
        claim.is_some_and(|claim| {
            claim.status == Status::Away && claim.expires_at.is_none() && claim.text.is_none()
        })
    };
    let found = app.realm.look(&[user], Consistency::Usual, look).await?;
    Ok(found.into_iter().flatten().any(|held| held))
}

async fn may_look(app: &App, caller: &Caller) -> Result<(), Problem> {
    activity::note(app, caller, &BROWSER).await?;
    caller.require(MAY_LOOK)
}

async fn own(app: &App, caller: &Caller) -> Result<ChatUser, Problem> {
    let user = app.actor(caller).await?;
    let status = app.status(caller, user, Consistency::Usual).await?;
    let username = caller.username.clone();
    Ok(ChatUser::of(&status, username))
}

async fn one(app: &App, caller: &Caller, user: UserNo) -> Result<ChatUser, Problem> {
    let status = app.status(caller, user, Consistency::Usual).await?;
    let username = history::usernames(app.realm.pool(), &[user]).await?.pop();
    Ok(ChatUser::of(&status, username.map(|(_, name)| name)))
}

impl ChatUser {
    fn of(status: &StatusBody, username: Option<String>) -> Self {
        Self {
            id: WireId::from(status.user_id.as_str()),
            username: username.unwrap_or_else(|| status.user_id.to_string()),
            online_status: status.status.into(),
            last_seen: status.last_seen,
        }
    }
}

/// Those who are so, by id; of one page, or as many as a list holds.
async fn listed(
    app: &App,
    caller: &Caller,
    page: Option<(usize, usize)>,
    wanted: impl Fn(OnlineStatus) -> bool,
) -> Result<ChatUsers, Problem> {
    app.realm.refresh_doubtful().await?;
    let mut found: Vec<(WireId, UserNo)> = Vec::new();
    app.realm.each(|seen| {
        let status = match App::audience(caller, seen.user_id) {
            Audience::Entitled => seen.state.status,
            Audience::Others => seen.state.shown_status(),
        };
        if wanted(StatusName::from(status).into()) {
            found.push((WireId::from(seen.user_id.as_str()), seen.user_no));
        }
    });
    found.sort_unstable();
    let count = found.len();
    let (first, most) = page
        .map_or((0, USERS_MAX), |(page, per_page)| ((page - 1).saturating_mul(per_page), per_page));
    let numbers: Vec<UserNo> =
        found.into_iter().skip(first).take(most).map(|(_, user)| user).collect();
    let look = |seen: Seen<'_>| StatusBody::of(seen, App::audience(caller, seen.user_id));
    let statuses = app.realm.look(&numbers, Consistency::Usual, look).await?;
    let names = history::usernames(app.realm.pool(), &numbers).await?;
    let mut names: std::collections::HashMap<UserNo, String> = names.into_iter().collect();
    let users = numbers
        .iter()
        .zip(&statuses)
        .filter_map(|(user, status)| Some(ChatUser::of(status.as_ref()?, names.remove(user))));
    let (page, per_page) = page.unzip();
    Ok(ChatUsers { users: users.collect(), count, page, per_page })
}
