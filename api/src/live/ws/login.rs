//! The session behind a WebSocket: opened or resumed with it, ended with it or a grace after.

use std::time::Duration;

use domain::command::Open;
use domain::{Command, GroupName, Outcome, Position, Reason, SessionId, Timestamp, UserNo};
use hmac::digest::Key;
use hmac::{Hmac, Mac as _};
use projections::groups::{MEMBERS_MAX, Visit};
use projections::realm::Consistency;
use projections::{Asked, Error, Executed};
use sha2::Sha256;
use uuid::Uuid;

use super::wire::End;
use crate::app::App;
use crate::auth::{Caller, Role, TokenEnd};
use crate::presence::done;
use crate::presence::sessions::device_detail;
use crate::problem::Problem;
use crate::shapes::DeviceBody;
use crate::viewer::names_group;

/// A session with a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Login {
    pub(super) user: UserNo,
    pub(super) session: SessionId,
    pub(super) position: Position,
    pub(super) resumed: bool,
    /// It is in a group for as long as it lives.
    pub(super) visits: bool,
}

/// Opens a session for the caller, when it is its turn.
pub(super) async fn open(
    app: &App,
    caller: &Caller,
    device: DeviceBody,
    idle_ms: u32,
) -> Result<Login, Problem> {
    let asked = Asked::by(None);
    let _turn = app.live.beginnings.acquire().await;
    let user = app.actor(caller).await?;
    let session = Uuid::now_v7();
    let command = Command::Open(Open {
        session,
        kind: device.kind.into(),
        idle_ms: idle_ms.min(i32::MAX as u32),
        interaction_driven: false,
    });
    let asked = Asked { actor: Some(user), detail: device_detail(device)?, ..asked };
    let receipt = done(app.realm.execute(user, &command, asked).await?)?;
    Ok(Login { user, session, position: receipt.position, resumed: false, visits: false })
}

/// Goes on with a session of the caller's, when it is its turn. Errors: 403 `resume_refused`, 410
/// `session_closed`.
pub(super) async fn resume(
    app: &App,
    caller: &Caller,
    session: SessionId,
    token: &str,
) -> Result<Login, Problem> {
    let asked = Asked::by(None);
    if !is_resume_token(app, caller, session, token) {
        let detail = "this resume_token does not belong to the session";
        return Err(Problem::new(axum::http::StatusCode::FORBIDDEN, "resume_refused", detail));
    }
    let _turn = app.live.beginnings.acquire().await;
    let user = app.actor(caller).await?;
    let asked = Asked { actor: Some(user), ..asked };
    let receipt = done(app.realm.execute(user, &Command::Resume { session }, asked).await?)?;
    Ok(Login { user, session, position: receipt.position, resumed: true, visits: false })
}

/// Puts the session into a group for as long as it lives. Errors: 403 `not_a_member`, where a
/// service says who belongs to the group; 422 `group_full`.
pub(super) async fn enter(
    app: &App,
    caller: &Caller,
    login: &mut Login,
    group: &GroupName,
) -> Result<(), Problem> {
    let free = caller.has_any(&[Role::Service, Role::Admin]) || names_group(caller, group);
    match app.groups.enter(group, login.user, login.session, free).await? {
        Visit::Begun => {
            login.visits = true;
            Ok(())
        }
        Visit::NotAMember => Err(Problem::not_a_member()),
        Visit::GroupFull => {
            let detail = format!("a group has at most {MEMBERS_MAX} visitors");
            Err(Problem::rule("group_full", detail))
        }
    }
}

/// What a client shows to go on with its session: good on every node, for this user alone.
pub(super) fn resume_token(app: &App, caller: &Caller, session: SessionId) -> String {
    let tag = signer(app, caller, session).finalize().into_bytes();
    format!("{tag:x}")
}

fn is_resume_token(app: &App, caller: &Caller, session: SessionId, token: &str) -> bool {
    let digits = token.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes: Option<Vec<u8>> = digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
    bytes.is_some_and(|bytes| signer(app, caller, session).verify_slice(&bytes).is_ok())
}

fn signer(app: &App, caller: &Caller, session: SessionId) -> Hmac<Sha256> {
    let secret = app.realm.live_secret();
    // A key is as long as a block; a shorter one is continued with zeros (RFC 2104).
    let mut key = Key::<Hmac<Sha256>>::default();
    key[..secret.len()].copy_from_slice(secret);
    let mut signer = Hmac::<Sha256>::new(&key);
    signer.update(b"rollcall resume 1\0");
    signer.update(session.as_bytes());
    signer.update(caller.user_id.as_str().as_bytes());
    signer
}

/// The session's latest sign of life that this node knows of.
pub(super) fn last_seen(app: &App, login: Login) -> Option<Timestamp> {
    let seen = |entry: &projections::roster::Entry| {
        entry.state.session(login.session).map(|session| session.last_seen)
    };
    app.realm.roster().read(login.user, seen).flatten()
}

/// What becomes of the session when its connection has ended.
pub(super) async fn leave(app: &App, login: Login, end: End, heard: Option<Timestamp>) {
    match end {
        End::Closed | End::Unwelcome => close(app, login, Reason::UserRequest).await,
        End::Token(TokenEnd::Revoked) => close(app, login, Reason::SessionTimeout).await,
        End::Token(TokenEnd::Expired) => grace(app, login, heard, Reason::SessionTimeout),
        End::Broken | End::Silent | End::TooSlow | End::TooBig | End::TooFast | End::Garbled => {
            grace(app, login, heard, Reason::LostCarrier);
        }
        // Another node's, another connection's, or nobody's any longer. A client that does not come
        // back to another node is found out by its lease.
        End::Stopping | End::Superseded | End::Refused | End::Unavailable => {}
        End::SessionOver => end_visits(app, login).await,
    }
}

/// If the session is over. Whatever goes wrong here is put right within a minute.
async fn end_visits(app: &App, login: Login) {
    if login.visits
        && let Err(error) = app.groups.end_visits(Some(login.session)).await
    {
        tracing::warn!(user_no = %login.user, %error, "ending a session's visits");
    }
}

async fn close(app: &App, login: Login, reason: Reason) {
    let command = Command::Close { session: login.session, reason };
    let asked = Asked::by((reason == Reason::UserRequest).then_some(login.user));
    log_failed(login, app.realm.execute(login.user, &command, asked).await);
    end_visits(app, login).await;
}

/// Waits, in a task of its own, for the client to come back, here or on another node; then ends the
/// session.
fn grace(app: &App, login: Login, heard: Option<Timestamp>, reason: Reason) {
    let Some(last_seen) = heard else { return };
    let app = app.clone();
    let grace = Duration::from_millis(app.realm.policy().grace_ms.into());
    tokio::spawn(async move {
        tokio::select! {
            () = app.live.stopping.cancelled() => return,
            () = tokio::time::sleep(grace) => {}
        }
        // Heartbeats that other nodes took in are in the database alone.
        let looked = app.realm.look(&[login.user], Consistency::Strong, |_| ()).await;
        if let Err(error) = looked {
            tracing::warn!(%error, "looking for a session that lost its connection");
            return;
        }
        let command = Command::CloseSilent { session: login.session, last_seen, reason };
        let asked = Asked::by(None);
        log_failed(login, app.realm.execute(login.user, &command, asked).await);
        end_visits(&app, login).await;
    });
}

/// Nobody waits for an answer; the session's lease ends it, if this did not.
fn log_failed(login: Login, executed: Result<Executed, Error>) {
    let refused = match executed {
        Ok(Executed::Done(receipt)) => match receipt.outcome {
            Outcome::Refused(refusal) => refusal.to_string(),
            Outcome::Opened { .. }
            | Outcome::Done
            | Outcome::Closed { .. }
            | Outcome::Guarded { .. } => return,
        },
        Ok(Executed::SessionEnded | Executed::KeyKnown) => "not what was asked".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(user_no = %login.user, error = refused, "ending a session after its connection");
}
