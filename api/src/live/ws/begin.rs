//! How a connection begins: with a session resumed or opened, then `hello`.

use axum::http::StatusCode;
use domain::Position;
use serde_json::Value;
use tokio::time::timeout;

use super::frames::{ClientFrame, Resume, Said, ServerFrame};
use super::login::{self, Login};
use super::style::Style;
use super::wire::{End, Incoming, Wire};
use crate::app::App;
use crate::auth::Caller;
use crate::limits::{REQUEST_TIME_MAX, RESUME_WAIT};
use crate::problem::Problem;
use crate::shapes::{DeviceBody, Instant};

/// A session with its connection, about to be served.
pub(super) struct Begun {
    pub(super) login: Login,
    /// Where the client was.
    pub(super) resume_from: Option<Position>,
    /// A first frame that was not about the session.
    pub(super) first: Option<Said>,
    /// The client has said nothing yet: on a slow way `resume` comes after [`RESUME_WAIT`].
    pub(super) unsaid: bool,
}

/// Waits a moment for the client to say which session it means, else opens one.
pub(super) async fn begin(
    app: &App,
    caller: &Caller,
    wire: &mut Wire,
    style: &Style,
) -> Result<Begun, End> {
    let said = tokio::select! {
        () = app.live.stopping.cancelled() => return Err(End::Stopping),
        said = timeout(RESUME_WAIT, first_frame(wire, style)) => said.ok().transpose()?,
    };
    let begun = timeout(REQUEST_TIME_MAX, begin_with(app, caller, wire, said)).await;
    begun.map_err(|_| End::Unavailable)?
}

async fn first_frame(wire: &mut Wire, style: &Style) -> Result<Said, End> {
    loop {
        match wire.next().await? {
            Incoming::Text(text) => return Ok(Said::read(&text, style)),
            Incoming::Sign => {}
            Incoming::Binary => {
                let frame = Err(Problem::bad_request("text_expected", "frames are JSON texts"));
                return Ok(Said { reference: None, frame });
            }
        }
    }
}

async fn begin_with(
    app: &App,
    caller: &Caller,
    wire: &mut Wire,
    said: Option<Said>,
) -> Result<Begun, End> {
    let unsaid = said.is_none();
    let (mut device, mut idle) = (DeviceBody::default(), 0);
    let (mut resume_from, mut first) = (None, None);
    match said {
        None => {}
        Some(Said { frame: Ok(ClientFrame::Open { device: said, idle_ms }), .. }) => {
            (device, idle) = (said.unwrap_or_default(), idle_ms);
        }
        Some(Said { reference, frame: Ok(ClientFrame::Resume(wanted)) }) => {
            let resumed = resume(app, caller, wire, reference.as_ref(), &wanted).await?;
            resume_from = resumed.from;
            if let Some(login) = resumed.login {
                return Ok(Begun { login, resume_from, first, unsaid });
            }
            (device, idle) = (wanted.device.unwrap_or_default(), wanted.idle_ms);
        }
        Some(said) => first = Some(said),
    }
    match login::open(app, caller, device, idle).await {
        Ok(login) => Ok(Begun { login, resume_from, first, unsaid }),
        Err(problem) => {
            wire.refuse(None, &problem).await?;
            let unavailable = problem.status().is_server_error();
            Err(if unavailable { End::Unavailable } else { End::Refused })
        }
    }
}

/// What came of a wish to go on.
pub(super) struct Resumed {
    /// The session; none: it is none for this client, which was told so.
    pub(super) login: Option<Login>,
    /// Where the client was, if the log has that position.
    pub(super) from: Option<Position>,
}

/// Goes on with a session, if it is there and the client's.
pub(super) async fn resume(
    app: &App,
    caller: &Caller,
    wire: &mut Wire,
    reference: Option<&Value>,
    wanted: &Resume,
) -> Result<Resumed, End> {
    let from = resumable(app, wire, reference, wanted.position).await?;
    match login::resume(app, caller, wanted.session_id, &wanted.token).await {
        Ok(login) => Ok(Resumed { login: Some(login), from }),
        Err(problem) => {
            wire.refuse(reference, &problem).await?;
            // The session may be there, only not now: another one must not take its place.
            if !matches!(problem.status(), StatusCode::GONE | StatusCode::FORBIDDEN) {
                return Err(End::Unavailable);
            }
            Ok(Resumed { login: None, from })
        }
    }
}

/// Where to go on from, if the log has that position.
async fn resumable(
    app: &App,
    wire: &mut Wire,
    reference: Option<&Value>,
    position: Option<Position>,
) -> Result<Option<Position>, End> {
    let Some(since) = position else { return Ok(None) };
    match app.resumable(since).await {
        Ok(()) => Ok(Some(since)),
        Err(problem) => {
            wire.refuse(reference, &problem).await?;
            // This node may be behind: to begin anew here would pass over what was missed.
            if problem.status().is_server_error() { Err(End::Unavailable) } else { Ok(None) }
        }
    }
}

/// Its position is the one to resume from if nothing else comes.
pub(super) async fn say_hello(
    app: &App,
    caller: &Caller,
    wire: &mut Wire,
    login: Login,
    from: Option<Position>,
) -> Result<(), End> {
    let policy = app.realm.policy();
    let hello = ServerFrame::Hello {
        session_id: login.session,
        resume_token: &login::resume_token(app, caller, login.session),
        heartbeat_interval_ms: policy.heartbeat_ms,
        lease_ms: policy.lease_ms,
        position: from.unwrap_or(login.position),
        resumed: login.resumed,
        server_time: Instant(app.realm.now()),
    };
    wire.say(&hello).await
}
