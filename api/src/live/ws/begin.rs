//! How a connection begins: with a session resumed or opened, and `hello`.

use axum::http::StatusCode;
use domain::Position;
use serde_json::Value;
use tokio::time::timeout;

use super::frames::{ClientFrame, Said, ServerFrame};
use super::login::{self, Login};
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
}

/// Waits a moment for the client to say which session it means, else opens one.
pub(super) async fn begin(app: &App, caller: &Caller, wire: &mut Wire) -> Result<Begun, End> {
    let said = tokio::select! {
        () = app.live.stopping.cancelled() => return Err(End::Stopping),
        said = timeout(RESUME_WAIT, first_frame(wire)) => said.ok().transpose()?,
    };
    let begun = timeout(REQUEST_TIME_MAX, begin_with(app, caller, wire, said)).await;
    let begun = begun.map_err(|_| End::Unavailable)??;
    say_hello(app, caller, wire, &begun).await?;
    Ok(begun)
}

async fn first_frame(wire: &mut Wire) -> Result<Said, End> {
    loop {
        match wire.next().await? {
            Incoming::Text(text) => return Ok(Said::read(&text)),
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
    let (mut device, mut idle, mut resume_from, mut first) = (DeviceBody::default(), 0, None, None);
    match said {
        None => {}
        Some(Said { reference, frame: Ok(ClientFrame::Open { device: said, idle_ms }) }) => {
            (device, idle) = (said.unwrap_or_default(), idle_ms);
            // Its answer is `hello`.
            drop(reference);
        }
        Some(Said {
            reference,
            frame: Ok(ClientFrame::Resume { session_id, resume_token, position }),
        }) => {
            let reference = reference.as_ref();
            resume_from = resumable(app, wire, reference, position).await?;
            match login::resume(app, caller, session_id, &resume_token).await {
                Ok(login) => return Ok(Begun { login, resume_from, first: None }),
                Err(problem) => {
                    wire.refuse(reference, &problem).await?;
                    // Only where that session is none for this client, another one is opened.
                    if !matches!(problem.status(), StatusCode::GONE | StatusCode::FORBIDDEN) {
                        return Err(End::Unavailable);
                    }
                }
            }
        }
        Some(said) => first = Some(said),
    }
    match login::open(app, caller, device, idle).await {
        Ok(login) => Ok(Begun { login, resume_from, first }),
        Err(problem) => {
            wire.refuse(None, &problem).await?;
            let unavailable = problem.status().is_server_error();
            Err(if unavailable { End::Unavailable } else { End::Refused })
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
            Ok(None)
        }
    }
}

/// Its position is the one to resume from if nothing else comes.
async fn say_hello(app: &App, caller: &Caller, wire: &mut Wire, begun: &Begun) -> Result<(), End> {
    let Login { session, position, resumed, .. } = begun.login;
    let policy = app.realm.policy();
    let hello = ServerFrame::Hello {
        session_id: session,
        resume_token: &login::resume_token(app, caller, session),
        heartbeat_interval_ms: policy.heartbeat_ms,
        lease_ms: policy.lease_ms,
        position: begun.resume_from.unwrap_or(position),
        resumed,
        server_time: Instant(app.realm.now()),
    };
    wire.say(&hello).await
}
