//! One connection, from its first frame to its last.

use axum::extract::ws::{Utf8Bytes, WebSocket};
use domain::{Position, Timestamp};
use futures::future::BoxFuture;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::begin::{self, Begun};
use super::frames::{ClientFrame, Resume, Said, ServerFrame};
use super::login::{self, Login};
use super::watching::{Failed, Watching, named};
use super::wire::{End, Incoming, Wire};
use crate::app::App;
use crate::auth::{Caller, TokenEnd};
use crate::limits::{FRAMES_BURST, FRAMES_PER_SECOND, GROUPS_LOOK_EVERY, REQUEST_TIME_MAX};
use crate::live::listening::Heard;
use crate::live::places::Place;
use crate::live::sockets::Attached;
use crate::live::{Counted, SOCKETS};
use crate::presence::heartbeat::beat;
use crate::problem::Problem;

/// Changes that are sent with one write.
const CHANGES_AT_ONCE: usize = 64;

/// Serves one connection, which holds its place until it has ended.
pub(super) async fn serve(app: App, caller: Caller, socket: WebSocket, place: Place) {
    let counted = Counted::new(SOCKETS);
    let mut wire = Wire::new(socket);
    match begin::begin(&app, &caller, &mut wire).await {
        Err(end) => wire.close(end).await,
        Ok(Begun { login, resume_from, first, unsaid }) => {
            let now = Instant::now();
            let connection = Connection {
                attached: app.live.sockets.attach(login.user, login.session),
                watching: Watching::from(resume_from),
                rate: RateLimiter::direct(quota()),
                token: app.auth.ends(&caller),
                session_end: app.realm.roster().session_end(login.session),
                heard: login::last_seen(&app, login),
                heard_at: now,
                pinged_at: None,
                ping_at: now + app.live.settings.ping_every,
                look_at: now + GROUPS_LOOK_EVERY,
                unsaid,
                app,
                caller,
                wire,
                login,
            };
            connection.run(first).await;
        }
    }
    drop((place, counted));
}

fn quota() -> Quota {
    let at_least_one = |n| std::num::NonZeroU32::new(n).unwrap_or(std::num::NonZeroU32::MIN);
    Quota::per_second(at_least_one(FRAMES_PER_SECOND)).allow_burst(at_least_one(FRAMES_BURST))
}

/// One connection with its session.
struct Connection {
    app: App,
    caller: Caller,
    wire: Wire,
    login: Login,
    attached: Attached,
    watching: Watching,
    rate: DefaultDirectRateLimiter,
    token: BoxFuture<'static, TokenEnd>,
    session_end: CancellationToken,
    /// The session's latest sign of life when this connection last heard its client: what came
    /// later came another way.
    heard: Option<Timestamp>,
    heard_at: Instant,
    pinged_at: Option<Instant>,
    ping_at: Instant,
    look_at: Instant,
    /// The client has said nothing yet.
    unsaid: bool,
}

/// What a connection waited for.
enum Woken {
    Came(Incoming),
    Change(Heard),
    Delivery(Utf8Bytes),
    Ping,
    Groups,
    Ended(End),
}

impl Connection {
    async fn run(mut self, first: Option<Said>) {
        let end = self.serve(first).await;
        let Self { app, mut wire, attached, login, heard, .. } = self;
        let end = if attached.has_session() { end } else { End::Superseded };
        if end != End::Superseded {
            app.realm.roster().forget_session(login.session);
        }
        drop(attached);
        tracing::debug!(user_no = %login.user, ?end, "a WebSocket ends");
        let leave = login::leave(&app, login, end, heard);
        // A node that stops waits for its connections: so the log is still there.
        futures::future::join(leave, wire.close(end)).await;
    }

    async fn serve(&mut self, first: Option<Said>) -> End {
        if let Some(said) = first
            && let Err(end) = self.follow(said).await
        {
            return end;
        }
        loop {
            let followed = match self.wait().await {
                Woken::Came(incoming) => self.take(incoming).await,
                Woken::Change(heard) => self.pass(heard).await,
                Woken::Delivery(frame) => self.wire.pass([frame]).await,
                Woken::Ping => self.ping().await,
                Woken::Groups => self.look_at_groups().await,
                Woken::Ended(end) => Err(end),
            };
            if let Err(end) = followed {
                return end;
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let too_slow = self.wire.hurry.clone();
        let ping_at = self.ping_at;
        tokio::select! {
            biased;
            () = self.app.live.stopping.cancelled() => Woken::Ended(End::Stopping),
            end = &mut self.token => Woken::Ended(End::Token(end)),
            () = self.attached.superseded.cancelled() => Woken::Ended(End::Superseded),
            () = too_slow.cancelled() => Woken::Ended(End::TooSlow),
            () = self.attached.too_slow.cancelled() => Woken::Ended(End::TooSlow),
            came = self.wire.next() => came.map_or_else(Woken::Ended, Woken::Came),
            () = self.session_end.cancelled() => Woken::Ended(End::SessionOver),
            heard = self.watching.next() => match heard {
                Some(heard) => Woken::Change(heard),
                None => Woken::Ended(End::TooSlow),
            },
            // Never none: the sending end is taken out together with this one.
            Some(frame) = self.attached.frames.recv() => Woken::Delivery(frame),
            () = sleep_until(ping_at) => Woken::Ping,
            () = sleep_until(self.look_at), if self.watching.has_groups() => Woken::Groups,
        }
    }

    /// What came is a sign of life of the connection, whatever it says.
    async fn take(&mut self, incoming: Incoming) -> Result<(), End> {
        self.heard_at = Instant::now();
        self.heard = login::last_seen(&self.app, self.login).or(self.heard);
        if self.rate.check().is_err() {
            return Err(End::TooFast);
        }
        match incoming {
            Incoming::Sign => Ok(()),
            Incoming::Binary => {
                let refused = Problem::bad_request("text_expected", "frames are JSON texts");
                self.wire.refuse(None, &refused).await
            }
            Incoming::Text(text) => self.follow(Said::read(&text)).await,
        }
    }

    /// Does what a frame says, and answers it.
    async fn follow(&mut self, said: Said) -> Result<(), End> {
        let Said { reference, frame } = said;
        let reference = reference.as_ref();
        let done = match frame {
            Err(refused) => Err(Failed::Refused(refused)),
            Ok(frame) => match timeout(REQUEST_TIME_MAX, self.act(frame, reference)).await {
                Ok(done) => done,
                Err(_) => Err(Failed::Refused(Problem::timeout())),
            },
        };
        match (done, reference) {
            (Ok(Answered::No), Some(reference)) => {
                self.wire.say(&ServerFrame::Ack { reference }).await
            }
            (Ok(Answered::No | Answered::Yes), _) => Ok(()),
            (Err(Failed::Ended(end)), _) => Err(end),
            (Err(Failed::Refused(problem)), _) => {
                self.wire.refuse(reference, &problem).await?;
                if problem.code() == "session_closed" { Err(End::SessionOver) } else { Ok(()) }
            }
        }
    }

    async fn act(
        &mut self,
        frame: ClientFrame,
        reference: Option<&Value>,
    ) -> Result<Answered, Failed> {
        let unsaid = std::mem::take(&mut self.unsaid);
        match frame {
            ClientFrame::Heartbeat { idle_ms } => self.beat(idle_ms).await,
            ClientFrame::Watch { users, groups } => {
                let named = named(users.as_ref(), groups.as_ref())?;
                self.watching.watch(&self.app, &self.caller, &mut self.wire, named).await?;
                Ok(Answered::No)
            }
            ClientFrame::Unwatch { users, groups } => {
                let named = named(users.as_ref(), groups.as_ref())?;
                self.watching.unwatch(&self.app, &self.caller, named).await?;
                Ok(Answered::No)
            }
            ClientFrame::Ping {} => {
                let position: Position = self.watching.position(&self.app);
                self.wire.say(&ServerFrame::Pong { reference, position }).await?;
                Ok(Answered::Yes)
            }
            ClientFrame::Resume(wanted) if unsaid => {
                self.resume_late(reference, &wanted).await?;
                Ok(Answered::Yes)
            }
            // One was opened already, on a device that nobody named.
            ClientFrame::Open { idle_ms, .. } if unsaid => self.beat(idle_ms).await,
            ClientFrame::Resume(_) | ClientFrame::Open { .. } => {
                let detail = "a session is opened or resumed by the first frame alone";
                Err(Problem::conflict("not_first", detail).into())
            }
        }
    }

    async fn beat(&mut self, idle_ms: u32) -> Result<Answered, Failed> {
        let Login { user, session, .. } = self.login;
        let taken = std::time::Instant::now();
        beat(&self.app, &self.caller, user, session, idle_ms, taken).await?;
        self.heard = login::last_seen(&self.app, self.login).or(self.heard);
        Ok(Answered::No)
    }

    /// Leaves the session that was opened while the client's wish was on its way.
    async fn resume_late(
        &mut self,
        reference: Option<&Value>,
        wanted: &Resume,
    ) -> Result<(), Failed> {
        let resumed =
            begin::resume(&self.app, &self.caller, &mut self.wire, reference, wanted).await?;
        self.watching = Watching::from(resumed.from);
        if let Some(login) = resumed.login {
            let before = std::mem::replace(&mut self.login, login);
            self.app.realm.roster().forget_session(before.session);
            self.attached = self.app.live.sockets.attach(login.user, login.session);
            self.session_end = self.app.realm.roster().session_end(login.session);
            self.heard = login::last_seen(&self.app, login);
            login::leave(&self.app, before, End::Closed, None).await;
        }
        let (app, login) = (&self.app, self.login);
        begin::say_hello(app, &self.caller, &mut self.wire, login, resumed.from).await?;
        Ok(())
    }

    /// Sends a change, and with it what else is there.
    async fn pass(&mut self, heard: Heard) -> Result<(), End> {
        let mut frames = vec![heard.told.frame()];
        while frames.len() < CHANGES_AT_ONCE
            && let Some(heard) = self.watching.try_next()
        {
            frames.push(heard.told.frame());
        }
        self.wire.pass(frames).await
    }

    /// Asks whether the client is there; ends where it has not answered in time. Who answers is
    /// alive; that the person is there only `heartbeat` says.
    async fn ping(&mut self) -> Result<(), End> {
        if self.pinged_at.is_some_and(|pinged_at| pinged_at > self.heard_at) {
            return Err(End::Silent);
        }
        let now = Instant::now();
        let settings = &self.app.live.settings;
        if self.pinged_at.is_none_or(|pinged_at| now >= pinged_at + settings.ping_every) {
            self.wire.ping().await?;
            self.pinged_at = Some(now);
            self.ping_at = now + settings.pong_max;
        } else {
            self.ping_at = self.pinged_at.unwrap_or(now) + settings.ping_every;
        }
        Ok(())
    }

    async fn look_at_groups(&mut self) -> Result<(), End> {
        self.look_at = Instant::now() + GROUPS_LOOK_EVERY;
        match self.watching.look_at_groups(&self.app, &self.caller, &mut self.wire).await {
            Ok(()) => Ok(()),
            Err(Failed::Ended(end)) => Err(end),
            Err(Failed::Refused(problem)) => self.wire.refuse(None, &problem).await,
        }
    }
}

/// Whether a frame has had its answer.
enum Answered {
    Yes,
    No,
}
