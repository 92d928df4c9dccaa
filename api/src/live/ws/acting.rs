//! What a connection does with each frame.

use domain::Position;
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use super::begin;
use super::connection::Connection;
use super::frames::{ClientFrame, Resume, Said, ServerFrame};
use super::login::{self, Login};
use super::mail::Sent;
use super::style::{Replaced, Style};
use super::watching::{Failed, Watching, named};
use super::wire::End;
use crate::limits::REQUEST_TIME_MAX;
use crate::live::watch::Snapshot;
use crate::presence::heartbeat::beat;
use crate::problem::Problem;

/// Whether a frame has had its answer.
enum Answered {
    Yes,
    No,
    /// It is to be answered with the name of what was sent.
    Sent(Uuid),
}

impl Connection {
    /// Does what a frame says, and answers it.
    pub(super) async fn follow(&mut self, said: Said) -> Result<(), End> {
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
                self.wire.say(&ServerFrame::Ack { reference, id: None }).await
            }
            (Ok(Answered::Sent(id)), Some(reference)) => {
                self.wire.say(&ServerFrame::Ack { reference, id: Some(id) }).await
            }
            (Ok(Answered::No | Answered::Sent(_) | Answered::Yes), _) => Ok(()),
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
                let Self { app, caller, wire, watching, .. } = self;
                if let Some(snapshot) = watching.watch(app, caller, wire, named).await? {
                    self.tell(&snapshot, true).await?;
                }
                Ok(Answered::No)
            }
            ClientFrame::Unwatch { users, groups } => {
                let named = named(users.as_ref(), groups.as_ref())?;
                let all = named.is_none();
                self.watching.unwatch(&self.app, &self.caller, named).await?;
                if all {
                    self.watch_by_itself(false).await?;
                }
                Ok(Answered::No)
            }
            ClientFrame::Join { group } => {
                self.mail.join(&self.app, &self.caller, &group).await?;
                Ok(Answered::No)
            }
            ClientFrame::Leave { group } => {
                self.mail.leave(&group);
                Ok(Answered::No)
            }
            ClientFrame::Send { to, group, body } => {
                let sent = Sent { to, group, body };
                Ok(Answered::Sent(self.mail.send(&self.app, &self.caller, sent).await?))
            }
            ClientFrame::Broadcast { body, title } => {
                let sent = self.mail.broadcast(&self.app, &self.caller, title, body).await?;
                Ok(Answered::Sent(sent))
            }
            ClientFrame::Ack { id } => {
                self.mail.acknowledge(&self.app, id).await?;
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
            self.holder = self.app.realm.holders().take(login.session, login.position);
            self.session_end = self.app.realm.roster().session_end(login.session);
            self.heard = login::last_seen(&self.app, login);
            login::leave(&self.app, before, End::Closed, None).await;
        }
        self.settle_in(resumed.from).await?;
        Ok(())
    }

    /// Says `hello`, with all that clients of the replaced system have without asking: they may
    /// make use of their group as soon as they are greeted.
    pub(super) async fn settle_in(&mut self, from: Option<Position>) -> Result<(), End> {
        self.enter().await?;
        let Self { app, caller, wire, login, .. } = self;
        begin::say_hello(app, caller, wire, *login, from).await?;
        // One who comes back may believe anything of anybody.
        match self.watch_by_itself(self.login.resumed).await {
            Ok(()) => Ok(()),
            Err(Failed::Ended(end)) => Err(end),
            Err(Failed::Refused(problem)) => {
                self.wire.refuse(None, &problem).await?;
                Err(End::Unavailable)
            }
        }
    }

    /// Into the group that the connection is for.
    async fn enter(&mut self) -> Result<(), End> {
        let Style::Replaced(Replaced { group: Some(group), .. }) = &self.style else {
            return Ok(());
        };
        let Self { app, caller, login, .. } = self;
        let entered = match login::enter(app, caller, login, group).await {
            Ok(()) => self.mail.listen_to(group),
            Err(problem) => Err(problem),
        };
        let Err(problem) = entered else { return Ok(()) };
        self.wire.refuse(None, &problem).await?;
        Err(if problem.status().is_server_error() { End::Unavailable } else { End::Unwelcome })
    }

    async fn watch_by_itself(&mut self, all: bool) -> Result<(), Failed> {
        let Style::Replaced(replaced) = &self.style else { return Ok(()) };
        let everybody = replaced.everybody;
        let Self { app, caller, wire, watching, .. } = self;
        if let Some(snapshot) = watching.watch_own(app, caller, wire, everybody).await? {
            let frames = self.online.tell_all(&snapshot, all);
            self.wire.pass(frames).await?;
        }
        self.tell_of_gone().await?;
        Ok(())
    }

    /// Tells of those who are on the list now. `asked`: by the client, who waits for a snapshot.
    pub(super) async fn tell(&mut self, snapshot: &Snapshot, asked: bool) -> Result<(), End> {
        let replaced = matches!(self.style, Style::Replaced(_));
        if asked || !replaced {
            let (items, position) = (snapshot.0.as_slice(), snapshot.1);
            self.wire.say(&ServerFrame::Snapshot { items, position }).await?;
        }
        if replaced {
            let frames = self.online.tell_all(snapshot, false);
            self.wire.pass(frames).await?;
        }
        Ok(())
    }

    /// Of those who were told of as being there and are not told of any longer.
    pub(super) async fn tell_of_gone(&mut self) -> Result<(), End> {
        let users = self.online.users();
        let Ok(numbers) = self.app.realm.names().find_all(&users).await else {
            return Err(End::Unavailable);
        };
        let mut frames = Vec::new();
        for (user, number) in users.iter().zip(numbers) {
            if !number.is_some_and(|number| self.watching.tells_of(number, user)) {
                frames.extend(self.online.tell(user, false));
            }
        }
        self.wire.pass(frames).await
    }
}
