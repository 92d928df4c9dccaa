//! Messages: sent by servers, kept for each receiver until acknowledged, fetched by those without
//! a socket.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::{GroupName, Position, UserId};
use projections::messages::{self, Draft, Kind, Message, TEXT_BYTES_MAX, TITLE_LENGTH_MAX, To};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, NoQuery, Path, Query};
use crate::limits::LIST_LIMIT_MAX;
use crate::presence::bulk::page_limit;
use crate::presence::plain_text;
use crate::presence::status::no_store;
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{Instant, Page};

/// Messages acknowledged by one call.
pub const ACKNOWLEDGED_MAX: usize = LIST_LIMIT_MAX as usize;
/// After this a receiver's mailbox may have room again.
const MAILBOX_RETRY: Duration = Duration::from_mins(1);

/// What kind of message: the name of its frame, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KindName {
    /// From one to another.
    Message,
    /// From a system.
    Notification,
    /// To everybody who is live; not to be acknowledged.
    Broadcast,
    /// To the members of a group.
    Group,
}

impl From<Kind> for KindName {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Message => Self::Message,
            Kind::Notification => Self::Notification,
            Kind::Broadcast => Self::Broadcast,
            Kind::Group => Self::Group,
        }
    }
}

/// A message as its receiver has it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MessageBody {
    /// What kind.
    #[serde(rename = "type")]
    pub kind: KindName,
    /// Its name: what is acknowledged.
    pub id: Uuid,
    /// From whom; not of systems.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub from: Option<UserId>,
    /// To which group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub group: Option<GroupName>,
    /// A headline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text.
    pub body: String,
    /// When it was taken in.
    pub created_at: Instant,
}

impl From<Message> for MessageBody {
    fn from(message: Message) -> Self {
        Self {
            kind: message.kind.into(),
            id: message.id,
            from: message.sender,
            group: message.group,
            title: message.title,
            body: message.body,
            created_at: Instant(message.created_at),
        }
    }
}

/// A notification to a user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NotificationRequest {
    /// To whom.
    #[schema(value_type = String)]
    user_id: UserId,
    /// 1 to 256 characters.
    title: String,
    /// 1 to 16,384 bytes.
    message: String,
}

/// A message from one user to another.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageRequest {
    /// From whom.
    #[schema(value_type = String)]
    from: UserId,
    /// To whom.
    #[schema(value_type = String)]
    to: UserId,
    /// 1 to 16,384 bytes.
    body: String,
}

/// A message to the members of a group.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupMessageRequest {
    /// From whom; left out: from the system.
    #[schema(value_type = Option<String>)]
    from: Option<UserId>,
    /// 1 to 16,384 bytes.
    body: String,
}

/// A message to everybody who is live.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BroadcastRequest {
    /// 1 to 16,384 bytes.
    body: String,
    /// 1 to 256 characters.
    title: Option<String>,
}

/// A message that was taken in.
#[derive(Debug, Serialize, ToSchema)]
pub struct PostedBody {
    pub(crate) id: Uuid,
    /// The log's head.
    position: Position,
    /// To a group: for how many stored members it is kept. 0: it went to those live alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<u32>,
    /// To a group: how many will not, since too many wait for them already.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<u32>,
}

/// Notifies a user. Kept until acknowledged, at most 7 days.
#[utoipa::path(post, path = "/v1/notifications", tag = "Live", operation_id = "notify_user",
    request_body = NotificationRequest,
    responses((status = 202, body = PostedBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 429, body = ProblemDocument<'static>, content_type = "application/problem+json",
            description = "`mailbox_full`: 1,100 wait for this user; nothing was sent")))]
pub async fn notify(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Json(request): Json<NotificationRequest>,
) -> Result<Response, Problem> {
    caller.require(&[Role::Service])?;
    let title = title(Some(request.title))?;
    let body = text("message", request.message)?;
    let to = To::Notified(app.known_user(&request.user_id).await?);
    let posted = post(&app, Draft { to, sender: None, title, body }).await?;
    Ok(accepted(posted))
}

/// Sends a message from one user to another. Kept until acknowledged, at most 7 days. What one
/// sender sent first comes first.
#[utoipa::path(post, path = "/v1/messages", tag = "Live", operation_id = "send_message",
    request_body = MessageRequest,
    responses((status = 202, body = PostedBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>, content_type = "application/problem+json",
            description = "`user_not_found`: the receiver; a new sender is made known"),
        (status = 429, body = ProblemDocument<'static>, content_type = "application/problem+json",
            description = "`mailbox_full`: 1,000 wait for this user; nothing was sent")))]
pub async fn send(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Json(request): Json<MessageRequest>,
) -> Result<Response, Problem> {
    caller.require(&[Role::Service])?;
    let body = text("body", request.body)?;
    let to = To::Person(app.known_user(&request.to).await?);
    let sender = Some(app.realm.names().number(&request.from).await?);
    let posted = post(&app, Draft { to, sender, title: None, body }).await?;
    Ok(accepted(posted))
}

/// Sends a message to the members of a group, the sender too where it is one: for its other
/// devices. For stored members it is kept like any other; those for whom too many wait already are
/// passed over, and counted in the answer. Members by their token alone have it if they are live.
#[utoipa::path(post, path = "/v1/groups/{group}/messages", tag = "Live",
    operation_id = "send_group_message",
    params(("group" = String, Path)), request_body = GroupMessageRequest,
    responses((status = 202, body = PostedBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 429, body = ProblemDocument<'static>, content_type = "application/problem+json",
            description = "`mailbox_full`: too many wait for every member; nothing was sent")))]
pub async fn send_to_group(
    State(app): State<App>,
    caller: Caller,
    Path(group): Path<GroupName>,
    _: NoQuery,
    Json(request): Json<GroupMessageRequest>,
) -> Result<Response, Problem> {
    caller.require(&[Role::Service])?;
    let body = text("body", request.body)?;
    let sender = match &request.from {
        Some(from) => Some(app.realm.names().number(from).await?),
        None => None,
    };
    let posted = post(&app, Draft { to: To::Group(group), sender, title: None, body }).await?;
    Ok(accepted(posted))
}

/// Sends to everybody who is live now, over a socket, on any node. Kept for nobody: who is away, or
/// polls, never has it.
#[utoipa::path(post, path = "/v1/broadcasts", tag = "Live", operation_id = "broadcast",
    request_body = BroadcastRequest,
    responses((status = 202, body = PostedBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn broadcast(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Json(request): Json<BroadcastRequest>,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin, Role::Service])?;
    let title = title(request.title)?;
    let body = text("body", request.body)?;
    let sender = Some(app.actor(&caller).await?);
    let posted = post(&app, Draft { to: To::Everybody, sender, title, body }).await?;
    Ok(accepted(posted))
}

fn accepted(posted: PostedBody) -> Response {
    (StatusCode::ACCEPTED, no_store(Json(posted))).into_response()
}

/// Sends, and says what became of it; 429 `mailbox_full`. Sockets send through it, too, once they
/// know that the sender may see the receiver.
pub(crate) async fn post(app: &App, draft: Draft) -> Result<PostedBody, Problem> {
    let to_group = matches!(draft.to, To::Group(_));
    let posted = app.mail.post(&draft).await?;
    if !posted.is_sent() {
        let waiting_max = draft.waiting_max();
        let detail = format!("{waiting_max} messages wait already; nothing was sent");
        let full = Problem::new(StatusCode::TOO_MANY_REQUESTS, "mailbox_full", detail);
        return Err(full.retry_after(MAILBOX_RETRY));
    }
    Ok(PostedBody {
        id: posted.id,
        position: app.realm.position(),
        delivered: to_group.then_some(posted.delivered),
        refused: to_group.then_some(posted.refused),
    })
}

/// The text of a message: 422 `invalid_text` where it is empty or too long.
pub(crate) fn text(name: &str, text: String) -> Result<String, Problem> {
    if (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.contains('\0') {
        return Ok(text);
    }
    let detail = format!("{name}: 1 to {TEXT_BYTES_MAX} bytes, no NUL");
    Err(Problem::rule("invalid_text", detail))
}

/// The headline of a message: 422 `invalid_text` where it is empty or too long. Who wants none
/// leaves it out.
pub(crate) fn title(title: Option<String>) -> Result<Option<String>, Problem> {
    if title.as_deref() == Some("") {
        let detail = format!("title: 1 to {TITLE_LENGTH_MAX} characters");
        return Err(Problem::rule("invalid_text", detail));
    }
    plain_text("title", title, TITLE_LENGTH_MAX)
}

/// A page of what waits.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitingQuery {
    /// Items of a page: 1 to 1000, 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where the page begins.
    cursor: Option<String>,
}

/// The caller's own messages that wait to be acknowledged, oldest first: for those who have no
/// socket. Broadcasts are not among them.
#[utoipa::path(get, path = "/v1/messages", tag = "Live", operation_id = "list_messages",
    params(WaitingQuery), responses((status = 200, body = Page<MessageBody>)))]
pub async fn waiting(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<WaitingQuery>,
) -> Result<Response, Problem> {
    let limit = page_limit(query.limit)?;
    let after = query.cursor.as_deref().unwrap_or("0").parse();
    let after: i64 = after.map_err(|_| Problem::invalid_parameter("cursor is none of ours"))?;
    let found = match app.realm.names().find(&caller.user_id).await? {
        Some(user) => messages::pending(app.realm.pool(), user, after, limit).await?,
        None => Vec::new(),
    };
    let last = found.last().filter(|_| found.len() == limit);
    let next_cursor = last.map(|(delivery_no, _)| delivery_no.to_string());
    let items = found.into_iter().map(|(_, message)| MessageBody::from(message)).collect();
    Ok(no_store(Json(Page { items, next_cursor })))
}

/// Messages that the caller has.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AckRequest {
    /// At most 1000.
    ids: Vec<Uuid>,
}

/// What was acknowledged.
#[derive(Debug, Serialize, ToSchema)]
pub struct AckBody {
    /// How many of them were waiting for the caller.
    acknowledged: u32,
    /// The log's head.
    position: Position,
}

/// Acknowledges messages: they are not delivered again. Repeatable; what waits for others stays.
#[utoipa::path(post, path = "/v1/messages/ack", tag = "Live",
    operation_id = "acknowledge_messages", request_body = AckRequest,
    responses((status = 200, body = AckBody)))]
pub async fn acknowledge(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Json(request): Json<AckRequest>,
) -> Result<Response, Problem> {
    if request.ids.len() > ACKNOWLEDGED_MAX {
        let detail = format!("at most {ACKNOWLEDGED_MAX} messages at once");
        return Err(Problem::rule("too_many_ids", detail));
    }
    let acknowledged = match app.realm.names().find(&caller.user_id).await? {
        Some(user) => messages::acknowledge(app.realm.pool(), user, &request.ids).await?,
        None => 0,
    };
    Ok(no_store(Json(AckBody { acknowledged, position: app.realm.position() })))
}
