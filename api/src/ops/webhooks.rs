//! Webhook endpoints, for admins: they are told the truth, invisible users' too.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::webhook::{DisabledBy, Endpoint, Filter};
use domain::{GroupName, Position, UserId, UserNo};
use projections::webhooks::{By, ENDPOINTS_MAX, Registered};
use projections::{Error, deliveries};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, NoQuery, Path};
use crate::presence::status::no_store;
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::StatusName;
use crate::webhooks::{address, sender};

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookBody {
    webhook_id: Uuid,
    /// Where events are posted to.
    url: String,
    /// Which types of events; none: all that are about users.
    event_types: Vec<String>,
    /// About whom; with `groups` empty, too: about everybody.
    #[schema(value_type = Vec<String>)]
    users: Vec<UserId>,
    /// Or about the members of these.
    #[schema(value_type = Vec<String>)]
    groups: Vec<GroupName>,
    /// The status before; none: any.
    from_status: Vec<StatusName>,
    /// The status after; none: any.
    to_status: Vec<StatusName>,
    /// Whether it is told.
    enabled: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_by: Option<DisabledName>,
    /// The log is looked through for it up to here.
    #[schema(value_type = i64)]
    checkpoint: Position,
    /// Found there, and still to be told.
    pending: i64,
    /// Given up after the last attempt.
    dead: i64,
    /// What deliveries are signed with: shown once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// The log's head.
    #[schema(value_type = i64)]
    position: Position,
}

/// Why an endpoint is told nothing.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DisabledName {
    /// An administrator said so.
    Admin,
    /// It answered 410.
    Gone,
}

/// All endpoints.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhooksBody {
    items: Vec<WebhookBody>,
}

/// A new endpoint. It is told of what passes every list; an empty one lets all pass.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// Where events are posted to: `https`.
    url: String,
    /// Types of events; none: all that are about users. The system's own are told where they are
    /// named.
    event_types: Option<Vec<String>>,
    /// About whom; with `groups` empty, too: about everybody.
    #[schema(value_type = Option<Vec<String>>)]
    users: Option<Vec<UserId>>,
    /// Or about the members of these.
    #[schema(value_type = Option<Vec<String>>)]
    groups: Option<Vec<GroupName>>,
    /// The status before; none: any.
    from_status: Option<Vec<StatusName>>,
    /// The status after; none: any.
    to_status: Option<Vec<StatusName>>,
}

/// What of an endpoint is to change; the rest stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookChange {
    /// Where events are posted to: `https`.
    url: Option<String>,
    /// Types of events; none: all that are about users. The system's own are told where they are
    /// named.
    event_types: Option<Vec<String>>,
    /// About whom; with `groups` empty, too: about everybody.
    #[schema(value_type = Option<Vec<String>>)]
    users: Option<Vec<UserId>>,
    /// Or about the members of these.
    #[schema(value_type = Option<Vec<String>>)]
    groups: Option<Vec<GroupName>>,
    /// The status before; none: any.
    from_status: Option<Vec<StatusName>>,
    /// The status after; none: any.
    to_status: Option<Vec<StatusName>>,
    /// Told from here on, or not. What happens meanwhile waits in the log.
    enabled: Option<bool>,
    /// Makes a new secret, which the answer shows. The former one signs besides for 24 h.
    #[serde(default)]
    rotate_secret: bool,
}

impl From<WebhookRequest> for WebhookChange {
    fn from(request: WebhookRequest) -> Self {
        Self {
            url: Some(request.url),
            event_types: request.event_types,
            users: request.users,
            groups: request.groups,
            from_status: request.from_status,
            to_status: request.to_status,
            enabled: None,
            rotate_secret: false,
        }
    }
}

/// All endpoints, oldest first.
#[utoipa::path(get, path = "/v1/webhooks", tag = "Operations", operation_id = "list_webhooks",
    responses((status = 200, body = WebhooksBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn list(State(app): State<App>, caller: Caller, _: NoQuery) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let mut items = Vec::new();
    for registered in app.webhooks.all().await? {
        items.push(app.webhook_body(registered, None).await?);
    }
    Ok(no_store(Json(WebhooksBody { items })))
}

/// Makes an endpoint. It is told what happens from now on, signed by the rules of Standard Webhooks
/// with the `secret` that this answer alone shows.
#[utoipa::path(post, path = "/v1/webhooks", tag = "Operations", operation_id = "create_webhook",
    request_body = WebhookRequest,
    responses((status = 201, body = WebhookBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>, content_type = "application/problem+json",
            description = "`webhook_url_refused`, `webhook_refused`, `too_many_webhooks`")))]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Json(request): Json<WebhookRequest>,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let nothing = Endpoint { url: String::new(), filter: Filter::default() };
    let endpoint = app.changed(request.into(), nothing).await?;
    let secret = new_secret()?;
    let made = app.webhooks.create(endpoint, &secret, app.by(&caller).await?).await?;
    let id = made.ok_or_else(|| {
        Problem::rule("too_many_webhooks", format!("at most {ENDPOINTS_MAX} webhooks"))
    })?;
    let body = app.webhook_body(app.webhook(id).await?, Some(secret)).await?;
    Ok((StatusCode::CREATED, no_store(Json(body))).into_response())
}

/// One endpoint.
#[utoipa::path(get, path = "/v1/webhooks/{id}", tag = "Operations", operation_id = "get_webhook",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = WebhookBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    Ok(no_store(Json(app.webhook_body(app.webhook(id).await?, None).await?)))
}

/// Changes an endpoint, disables it, enables it again, gives it a new secret.
#[utoipa::path(put, path = "/v1/webhooks/{id}", tag = "Operations",
    operation_id = "change_webhook",
    params(("id" = Uuid, Path)), request_body = WebhookChange,
    responses((status = 200, body = WebhookBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>, content_type = "application/problem+json",
            description = "`webhook_url_refused`, `webhook_refused`")))]
pub async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    _: NoQuery,
    Json(change): Json<WebhookChange>,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let known = app.webhook(id).await?.endpoint;
    let (enabled, rotate) = (change.enabled, change.rotate_secret);
    let endpoint = app.changed(change, known).await?;
    let by = app.by(&caller).await?;
    app.webhooks.change(id, Some(endpoint), enabled, by).await?;
    let secret = if rotate {
        let secret = new_secret()?;
        app.webhooks.rotate(id, &secret, by).await?;
        Some(secret)
    } else {
        None
    };
    Ok(no_store(Json(app.webhook_body(app.webhook(id).await?, secret).await?)))
}

/// Ends an endpoint, with all that it was still to be told.
#[utoipa::path(delete, path = "/v1/webhooks/{id}", tag = "Operations",
    operation_id = "delete_webhook",
    params(("id" = Uuid, Path)),
    responses((status = 204),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    _: NoQuery,
) -> Result<StatusCode, Problem> {
    caller.require(&[Role::Admin])?;
    app.webhooks.delete(id, app.by(&caller).await?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn new_secret() -> Result<String, Problem> {
    sender::new_secret().ok_or_else(|| Problem::internal("no randomness"))
}

impl App {
    /// An endpoint that there is, or 404.
    pub(crate) async fn webhook(&self, id: Uuid) -> Result<Registered, Problem> {
        let found = self.webhooks.find(id).await?;
        found.ok_or_else(|| Error::Webhook(domain::webhook::WebhookRefusal::NotFound).into())
    }

    async fn by(&self, caller: &Caller) -> Result<By, Problem> {
        Ok(By { actor: Some(self.actor(caller).await?), at: self.realm.now() })
    }

    fn check_url(&self, url: &str) -> Result<(), Problem> {
        let refused = |why: String| Problem::rule("webhook_url_refused", why);
        let url: reqwest::Url =
            url.parse().map_err(|error| refused(format!("url is none: {error}")))?;
        address::check(&url, self.sender.allow_private).map_err(|why| refused(why.to_string()))
    }

    /// What an endpoint shall be. Users may be named before they were ever seen.
    async fn changed(&self, change: WebhookChange, known: Endpoint) -> Result<Endpoint, Problem> {
        if let Some(url) = &change.url {
            self.check_url(url)?;
        }
        let statuses = |given: Option<Vec<StatusName>>, known| {
            given.map_or(known, |names| names.into_iter().map(domain::Status::from).collect())
        };
        let users = match change.users {
            None => known.filter.users,
            Some(names) => self.numbers(&names).await?,
        };
        let filter = Filter {
            event_types: change.event_types.unwrap_or(known.filter.event_types),
            users,
            groups: change.groups.unwrap_or(known.filter.groups),
            from_status: statuses(change.from_status, known.filter.from_status),
            to_status: statuses(change.to_status, known.filter.to_status),
        };
        Ok(Endpoint { url: change.url.unwrap_or(known.url), filter })
    }

    async fn numbers(&self, names: &[UserId]) -> Result<Vec<UserNo>, Problem> {
        if names.len() > domain::webhook::FILTER_MAX {
            return Err(Error::Webhook(domain::webhook::WebhookRefusal::TooMany("users")).into());
        }
        let mut numbers = Vec::with_capacity(names.len());
        for name in names {
            numbers.push(self.realm.names().number(name).await?);
        }
        Ok(numbers)
    }

    async fn webhook_body(
        &self,
        registered: Registered,
        secret: Option<String>,
    ) -> Result<WebhookBody, Problem> {
        let counts = deliveries::counts(self.realm.pool(), registered.id).await?;
        let Filter { event_types, users, groups, from_status, to_status } =
            registered.endpoint.filter;
        let names =
            |statuses: Vec<domain::Status>| statuses.into_iter().map(StatusName::from).collect();
        let disabled = registered.webhook.disabled;
        Ok(WebhookBody {
            webhook_id: registered.id,
            url: registered.endpoint.url,
            event_types,
            users: self.realm.names().named(&users).await?,
            groups,
            from_status: names(from_status),
            to_status: names(to_status),
            enabled: disabled.is_none(),
            disabled_by: disabled.map(|by| match by {
                DisabledBy::Admin => DisabledName::Admin,
                DisabledBy::Gone => DisabledName::Gone,
            }),
            checkpoint: registered.position,
            pending: counts.pending,
            dead: counts.dead,
            secret,
            position: self.realm.position(),
        })
    }
}
