//! `GET /v1/stream`: server-sent events (WHATWG HTML, 9.2).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use domain::{Policy, Position};
use futures::future::BoxFuture;
use futures::stream;
use projections::realm::Consistency;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use utoipa::IntoParams;

use super::hub::Joined;
use super::listening::Listening;
use super::places::Place;
use super::watch::{Circles, Named, Snapshot};
use super::{Counted, STREAMS};
use crate::app::App;
use crate::auth::{Caller, TokenEnd};
use crate::extract::Query;
use crate::limits::{GROUPS_LOOK_EVERY, STREAM_ALIVE_EVERY};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::StatusBody;

/// Whom to watch, and from where on.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// These users only, separated by commas; at most 1000.
    users: Option<String>,
    /// The members of these groups, separated by commas.
    groups: Option<String>,
    /// Go on from this position; `Last-Event-ID` wins.
    #[param(minimum = 0)]
    since: Option<i64>,
}

/// Changes as they happen: first `snapshot` unless resumed, then `status_changed`. The `id` of each
/// is its position.
#[utoipa::path(get, path = "/v1/stream", tag = "Live",
    operation_id = "stream_changes",
    params(StreamQuery, ("Last-Event-ID" = Option<i64>, Header,
        description = "Go on from this position")),
    responses((status = 200, body = String, content_type = "text/event-stream",
            description = "`snapshot`: items and position; `status_changed`: a change. A comment \
                after 15 s of silence"),
        (status = 403, description = "`forbidden`: `groups` names those that the caller does not, \
                or no longer, belong to; ask without them",
            body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 410, description = "`cursor_expired`: the log has no such position yet",
            body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 429, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn stream(
    State(app): State<App>,
    caller: Caller,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Query(query): Query<StreamQuery>,
) -> Result<Response, Problem> {
    let since = match headers.get("last-event-id") {
        Some(id) => Some(position_of(id)?),
        None => query.since,
    };
    let named = Named::of_query(query.users.as_deref(), query.groups.as_deref())?;
    let place = app.live.places.take(&caller, peer.ip())?;
    let feed = Feed::begin(app, caller, named, since, place).await?;
    let events = stream::unfold(feed, |mut feed| async {
        let event = feed.next().await?;
        Some((Ok::<_, Infallible>(event), feed))
    });
    // Proxies that gather answers would hold events back.
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Sse::new(events)).into_response())
}

fn position_of(id: &HeaderValue) -> Result<Position, Problem> {
    let position = id.to_str().ok().and_then(|id| id.trim().parse().ok());
    position.ok_or_else(|| Problem::invalid_parameter("Last-Event-ID is none of ours"))
}

/// One stream.
struct Feed {
    app: App,
    caller: Caller,
    circles: Circles,
    policy: watch::Receiver<Arc<Policy>>,
    /// A snapshot that is still to be sent.
    snapshot: Option<Snapshot>,
    listening: Listening,
    ended: BoxFuture<'static, TokenEnd>,
    over: bool,
    look_at: Instant,
    /// A resumed feed that has to tell of all as of now, once it has told what was missed.
    look_anew: bool,
    _place: Place,
    _counted: Counted,
}

/// What a stream waited for.
enum Woken {
    Heard(Option<super::listening::Heard>),
    Silence,
    Look,
    TooSlow,
    Over,
}

impl Feed {
    async fn begin(
        app: App,
        caller: Caller,
        named: Option<Named>,
        since: Option<Position>,
        place: Place,
    ) -> Result<Self, Problem> {
        // What changes from here on is looked at again.
        let policy = app.realm.policy_changes();
        let watched = app.watched(&caller, named.as_ref()).await?;
        let viewer = app.viewer(&caller).await?;
        let groups = named.map(|named| named.groups).unwrap_or_default();
        let circles = Circles { groups, own: false };
        let joined = match since {
            None => Joined::TooFarBehind,
            Some(since) => {
                app.resumable(since).await?;
                app.live.hub.resume(&viewer, &watched, since, app.realm.position()).await?
            }
        };
        let mut look_at = Instant::now() + GROUPS_LOOK_EVERY;
        let (listening, snapshot) = match joined {
            Joined::Listening(listening) => {
                // What was missed comes first.
                look_at = Instant::now();
                (listening, None)
            }
            Joined::TooFarBehind => {
                let mut listening = app.live.hub.listen(&viewer, &watched).await?;
                let (items, position) = app.snapshot(&viewer, &watched, Consistency::Usual).await?;
                listening.told_up_to(position, None);
                (listening, Some((items, position)))
            }
        };
        let look_anew = snapshot.is_none() && (viewer.is_limited() || !circles.is_empty());
        let ended = app.auth.ends(&caller);
        Ok(Self {
            app,
            caller,
            circles,
            policy,
            snapshot,
            look_anew,
            listening,
            ended,
            over: false,
            look_at,
            _place: place,
            _counted: Counted::new(STREAMS),
        })
    }

    /// The next event; none: the stream ends, and the client comes back.
    async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        if let Some((items, position)) = self.snapshot.take() {
            return Some(snapshot_event(&items, position));
        }
        let silent_at = Instant::now() + STREAM_ALIVE_EVERY;
        loop {
            match self.wait(silent_at).await {
                Woken::Heard(Some(heard)) => {
                    let mut body = String::new();
                    heard.told.write_body(&mut body);
                    let event = Event::default().event("status_changed").data(body);
                    return Some(event.id(heard.position.to_string()));
                }
                Woken::TooSlow | Woken::Heard(None) => {
                    self.over = true;
                    return Some(Event::default().comment("too_slow"));
                }
                // Without data it is no event, but its id is where to go on from.
                Woken::Silence => {
                    let position = self.listening.position();
                    return Some(Event::default().comment("alive").id(position.to_string()));
                }
                Woken::Look => match self.look_again().await {
                    Ok(None) => {}
                    Ok(Some(event)) => return Some(event),
                    Err(problem) => {
                        self.over = true;
                        return Some(Event::default().comment(problem.code()));
                    }
                },
                Woken::Over => return None,
            }
        }
    }

    async fn wait(&mut self, silent_at: Instant) -> Woken {
        let changing = !self.circles.is_empty() || self.listening.is_limited();
        let too_slow = self.listening.too_slow().clone();
        tokio::select! {
            biased;
            () = self.app.live.stopping.cancelled() => Woken::Over,
            _ = &mut self.ended => Woken::Over,
            () = too_slow.cancelled() => Woken::TooSlow,
            heard = self.listening.next() => Woken::Heard(heard),
            () = sleep_until(self.look_at), if changing => Woken::Look,
            Ok(()) = self.policy.changed() => Woken::Look,
            () = sleep_until(silent_at) => Woken::Silence,
        }
    }

    /// Who has come in, or may be seen from now on, is shown as of now.
    async fn look_again(&mut self) -> Result<Option<Event>, Problem> {
        self.look_at = Instant::now() + GROUPS_LOOK_EVERY;
        if std::mem::take(&mut self.look_anew) {
            self.listening.forget_seen();
        }
        let Self { app, caller, circles, listening, .. } = self;
        let looked = app.look_again(caller, circles, listening).await?;
        Ok(looked.came.map(|(items, position)| snapshot_event(&items, position)))
    }
}

fn snapshot_event(items: &[StatusBody], position: Position) -> Event {
    #[derive(Serialize)]
    struct Snapshot<'a> {
        items: &'a [StatusBody],
        position: Position,
    }
    let data = serde_json::to_string(&Snapshot { items, position }).unwrap_or_default();
    Event::default().event("snapshot").data(data).id(position.to_string())
}
