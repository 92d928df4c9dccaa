//! One connection, from its first frame to its last.

use std::sync::Arc;

use axum::extract::ws::{Utf8Bytes, WebSocket};
use domain::{Policy, Position, Timestamp};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use projections::holders::Holder;
use projections::mailman::Delivery;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::begin::{self, Begun};
use super::frames::{ClientFrame, Said};
use super::login::{self, Login};
use super::mail::{self, Mail};
use super::style::{Online, Style};
use super::watching::{Failed, Watching};
use super::wire::{End, Incoming, Wire};
use crate::app::App;
use crate::auth::{Caller, TokenEnd};
use crate::limits::{FRAMES_BURST, FRAMES_PER_SECOND, GROUPS_LOOK_EVERY};
use crate::live::listening::Heard;
use crate::live::places::Place;
use crate::live::{Counted, SOCKETS};
use crate::problem::Problem;

/// Changes that are sent with one write.
const CHANGES_AT_ONCE: usize = 64;

/// Serves one connection, which holds its place until it has ended.
pub(super) async fn serve(app: App, caller: Caller, socket: WebSocket, place: Place, style: Style) {
    let counted = Counted::new(SOCKETS);
    let mut wire = Wire::new(socket, matches!(style, Style::Replaced(_)));
    match begin::begin(&app, &caller, &mut wire, &style).await {
        Err(end) => wire.close(end).await,
        Ok(Begun { login, resume_from, first, unsaid }) => {
            let now = Instant::now();
            let connection = Connection {
                holder: app.realm.holders().take(login.session, login.position),
                watching: Watching::from(resume_from),
                mail: Mail::of(&app, &caller, login.user),
                policy: app.realm.policy_changes(),
                online: Online::default(),
                style,
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
            connection.run(resume_from, first).await;
        }
    }
    drop((place, counted));
}

fn quota() -> Quota {
    let at_least_one = |n| std::num::NonZeroU32::new(n).unwrap_or(std::num::NonZeroU32::MIN);
    Quota::per_second(at_least_one(FRAMES_PER_SECOND)).allow_burst(at_least_one(FRAMES_BURST))
}

/// One connection with its session.
pub(super) struct Connection {
    pub(super) app: App,
    pub(super) caller: Caller,
    pub(super) style: Style,
    pub(super) wire: Wire,
    pub(super) login: Login,
    pub(super) holder: Holder,
    pub(super) watching: Watching,
    pub(super) mail: Mail,
    /// Whom a client of the replaced system believes to be there.
    pub(super) online: Online,
    policy: watch::Receiver<Arc<Policy>>,
    rate: DefaultDirectRateLimiter,
    token: BoxFuture<'static, TokenEnd>,
    pub(super) session_end: CancellationToken,
    /// The session's latest sign of life when this connection last heard its client: what came
    /// later came another way.
    pub(super) heard: Option<Timestamp>,
    heard_at: Instant,
    pinged_at: Option<Instant>,
    ping_at: Instant,
    look_at: Instant,
    /// The client has said nothing yet.
    pub(super) unsaid: bool,
}

/// What a connection waited for.
enum Woken {
    Came(Incoming),
    Change(Heard),
    Mail(Delivery),
    Ping,
    Look,
    Ended(End),
}

impl Connection {
    async fn run(mut self, resume_from: Option<Position>, first: Option<Said>) {
        let end = self.serve(resume_from, first).await;
        let Self { app, mut wire, holder, login, heard, .. } = self;
        if end == End::Closed {
            // Who takes a session over on another node closes the way on which it was here.
            app.realm.hear_others().await;
        }
        let end = if holder.has_session() { end } else { End::Superseded };
        if end != End::Superseded {
            app.realm.roster().forget_session(login.session);
        }
        drop(holder);
        tracing::debug!(user_no = %login.user, ?end, "a WebSocket ends");
        let leave = login::leave(&app, login, end, heard);
        // A node that stops waits for its connections: so the log is still there.
        futures::future::join(leave, wire.close(end)).await;
    }

    async fn serve(&mut self, resume_from: Option<Position>, first: Option<Said>) -> End {
        if let Err(end) = self.settle_in(resume_from).await {
            return end;
        }
        if let Some(said) = first
            && let Err(end) = self.follow(said).await
        {
            return end;
        }
        loop {
            let followed = match self.wait().await {
                Woken::Came(incoming) => self.take(incoming).await,
                Woken::Change(heard) => self.pass(heard).await,
                Woken::Mail(delivery) => self.bring(delivery).await,
                Woken::Ping => self.ping().await,
                Woken::Look => self.look_again().await,
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
        let now = self.watching.wants_a_look();
        let look_at = if now { Instant::now() } else { self.look_at };
        tokio::select! {
            biased;
            () = self.app.live.stopping.cancelled() => Woken::Ended(End::Stopping),
            end = &mut self.token => Woken::Ended(End::Token(end)),
            () = self.holder.superseded.cancelled() => Woken::Ended(End::Superseded),
            () = too_slow.cancelled() => Woken::Ended(End::TooSlow),
            came = self.wire.next() => came.map_or_else(Woken::Ended, Woken::Came),
            () = self.session_end.cancelled() => Woken::Ended(End::SessionOver),
            // There is less of it than of changes, which would never let it pass otherwise.
            delivery = self.mail.next() => Woken::Mail(delivery),
            heard = self.watching.next() => match heard {
                Some(heard) => Woken::Change(heard),
                None => Woken::Ended(End::TooSlow),
            },
            () = sleep_until(ping_at) => Woken::Ping,
            () = sleep_until(look_at), if self.watching.is_changing() => Woken::Look,
            Ok(()) = self.policy.changed() => Woken::Look,
        }
    }

    /// What came is a sign of life of the connection, whatever it says.
    async fn take(&mut self, incoming: Incoming) -> Result<(), End> {
        self.heard_at = Instant::now();
        self.heard = login::last_seen(&self.app, self.login).or(self.heard);
        let said = match incoming {
            Incoming::Sign => None,
            Incoming::Binary => {
                let refused = Problem::bad_request("text_expected", "frames are JSON texts");
                Some(Said { reference: None, frame: Err(refused) })
            }
            Incoming::Text(text) => Some(Said::read(&text, &self.style)),
        };
        let acks = matches!(&said, Some(Said { frame: Ok(ClientFrame::Ack { .. }), .. }));
        if !(acks && self.mail.is_owed()) && self.rate.check().is_err() {
            return Err(End::TooFast);
        }
        match said {
            None => Ok(()),
            Some(said) => self.follow(said).await,
        }
    }

    /// Sends a change, and with it what else is there.
    async fn pass(&mut self, heard: Heard) -> Result<(), End> {
        let mut frames = Vec::new();
        frames.extend(self.frame(&heard));
        for _ in 1..CHANGES_AT_ONCE {
            let Some(heard) = self.watching.try_next() else { break };
            frames.extend(self.frame(&heard));
        }
        self.wire.pass(frames).await
    }

    /// What is said of a change.
    fn frame(&mut self, heard: &Heard) -> Option<Utf8Bytes> {
        match &self.style {
            Style::Rollcall => Some(heard.told.frame()),
            Style::Replaced(_) => self.online.tell(&heard.user_id, heard.told.is_online()),
        }
    }

    /// Sends a message, and with it what else is there.
    async fn bring(&mut self, delivery: Delivery) -> Result<(), End> {
        let mut frames = Vec::new();
        let mut next = Some(delivery);
        while let Some(delivery) = next {
            if self.is_for_us(&delivery).await? {
                frames.extend(mail::frame(&self.wire, &delivery));
            }
            let room = frames.len() < mail::AT_ONCE;
            next = room.then(|| self.mail.next().now_or_never()).flatten();
        }
        self.wire.pass(frames).await
    }

    /// What comes to a group's listeners is for those who belong to it still.
    async fn is_for_us(&mut self, delivery: &Delivery) -> Result<bool, End> {
        let group = delivery.message.group.as_ref().filter(|_| delivery.receiver.is_none());
        let Some(group) = group else { return Ok(true) };
        match self.app.belongs(&self.caller, group).await {
            Ok(belongs) => Ok(belongs),
            Err(problem) => {
                self.wire.refuse(None, &problem).await?;
                Err(End::Unavailable)
            }
        }
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

    /// Who came in is told of as of now. Who went is not told of any longer; clients of the
    /// replaced system believe that they are gone.
    async fn look_again(&mut self) -> Result<(), End> {
        self.look_at = Instant::now() + GROUPS_LOOK_EVERY;
        let looked = match self.watching.look_again(&self.app, &self.caller).await {
            Ok(looked) => looked,
            Err(Failed::Ended(end)) => return Err(end),
            Err(Failed::Refused(problem)) => return self.wire.refuse(None, &problem).await,
        };
        if let Some(snapshot) = looked.came {
            self.tell(&snapshot, false).await?;
        }
        match &self.style {
            Style::Replaced(_) if looked.moved => self.tell_of_gone().await,
            Style::Replaced(_) | Style::Rollcall => Ok(()),
        }
    }
}
