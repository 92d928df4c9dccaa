//! `GET /v1/stream`: server-sent events (WHATWG HTML, 9.2).

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use domain::Position;
use futures::future::BoxFuture;
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};
use utoipa::IntoParams;

use super::hub::Joined;
use super::listening::Listening;
use super::places::Place;
use super::watch::{Named, Viewer, Watched};
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
    groups: Vec<String>,
    /// A snapshot that is still to be sent.
    snapshot: Option<(Vec<StatusBody>, Position)>,
    listening: Listening,
    ended: BoxFuture<'static, TokenEnd>,
    over: bool,
    look_at: Instant,
    _place: Place,
    _counted: Counted,
}

/// What a stream waited for.
enum Woken {
    Heard(Option<super::listening::Heard>),
    Silence,
    Groups,
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
        let watched = app.watched(&caller, named.as_ref()).await?;
        let viewer = Viewer::of(&caller);
        let joined = match since {
            None => Joined::TooFarBehind,
            Some(since) => {
                app.resumable(since).await?;
                app.live.hub.resume(&viewer, &watched, since, app.realm.position()).await?
            }
        };
        let (listening, snapshot) = match joined {
            Joined::Listening(listening) => (listening, None),
            Joined::TooFarBehind => {
                let mut listening = app.live.hub.listen(&viewer, &watched).await?;
                let (items, position) = app.snapshot(&caller, &watched).await?;
                listening.told_up_to(position, None);
                (listening, Some((items, position)))
            }
        };
        let ended = app.auth.ends(&caller);
        let groups = named.map(|named| named.groups).unwrap_or_default();
        Ok(Self {
            app,
            caller,
            groups,
            snapshot,
            listening,
            ended,
            over: false,
            look_at: Instant::now() + GROUPS_LOOK_EVERY,
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
                Woken::Groups => match self.look_at_groups().await {
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
        let grouped = !self.groups.is_empty();
        let too_slow = self.listening.too_slow().clone();
        tokio::select! {
            biased;
            () = self.app.live.stopping.cancelled() => Woken::Over,
            _ = &mut self.ended => Woken::Over,
            () = too_slow.cancelled() => Woken::TooSlow,
            heard = self.listening.next() => Woken::Heard(heard),
            () = sleep_until(self.look_at), if grouped => Woken::Groups,
            () = sleep_until(silent_at) => Woken::Silence,
        }
    }

    /// Who has come into a watched group is shown as of now.
    async fn look_at_groups(&mut self) -> Result<Option<Event>, Problem> {
        self.look_at = Instant::now() + GROUPS_LOOK_EVERY;
        let members = self.app.members(&self.caller, &self.groups).await?;
        let newcomers = self.listening.rewatch(|watched| {
            let newcomers = members.difference(&watched.members).copied().collect();
            watched.members = members;
            newcomers
        });
        let newcomers = Watched { members: newcomers.unwrap_or_default(), ..Watched::default() };
        if newcomers.members.is_empty() {
            return Ok(None);
        }
        let (items, position) = self.app.snapshot(&self.caller, &newcomers).await?;
        let users = items.iter().map(|item| item.user_id.clone()).collect();
        self.listening.told_up_to(position, Some(users));
        // Of the others changes below that position may still be on their way.
        let position = self.listening.position().min(position);
        Ok(Some(snapshot_event(&items, position)))
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
