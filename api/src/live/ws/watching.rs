//! The watch list of one WebSocket.

use std::collections::HashSet;

use domain::{Position, UserId};

use super::frames::ServerFrame;
use super::wire::{End, Wire};
use crate::app::App;
use crate::auth::Caller;
use crate::limits::{WATCHED_GROUPS_MAX, WATCHED_USERS_MAX};
use crate::live::hub::Joined;
use crate::live::listening::{Heard, Listening};
use crate::live::watch::{Named, Viewer, Watched};
use crate::problem::Problem;

/// Whom a connection watches.
#[derive(Debug, Default)]
pub(super) struct Watching {
    listening: Option<Listening>,
    groups: Vec<String>,
    /// Where a resumed client was: the first list goes on from there.
    resume_from: Option<Position>,
}

/// Why a frame was not followed: told to the client, or the end of the connection.
pub(super) enum Failed {
    Refused(Problem),
    Ended(End),
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<End> for Failed {
    fn from(end: End) -> Self {
        Self::Ended(end)
    }
}

/// Names as a frame has them; none: everybody.
pub(super) fn named(
    users: Option<&Vec<String>>,
    groups: Option<&Vec<String>>,
) -> Result<Option<Named>, Problem> {
    if users.is_none() && groups.is_none() {
        return Ok(None);
    }
    let list = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let (users, groups) = (list(users), list(groups));
    Named::parse(users.iter().map(String::as_str), groups.iter().map(String::as_str)).map(Some)
}

impl Watching {
    /// Nobody yet. A resumed client was at that position.
    pub(super) fn from(resume_from: Option<Position>) -> Self {
        Self { resume_from, ..Self::default() }
    }

    /// Adds to the list; tells of those who are new on it, or what was missed of them.
    pub(super) async fn watch(
        &mut self,
        app: &App,
        caller: &Caller,
        wire: &mut Wire,
        named: Option<Named>,
    ) -> Result<(), Failed> {
        let added = app.watched(caller, named.as_ref()).await?;
        let groups = named.map(|named| named.groups).unwrap_or_default();
        self.check_room(&added, &groups)?;
        if let Some(listening) = &mut self.listening {
            let fresh = listening.rewatch(|watched| add(watched, &added));
            let fresh = fresh.ok_or(End::TooSlow)?;
            self.add_groups(groups);
            return self.tell_as_of_now(app, caller, wire, &fresh, false).await;
        }
        let viewer = Viewer::of(caller);
        if let Some(since) = self.resume_from.take()
            && let Joined::Listening(listening) =
                app.live.hub.resume(&viewer, &added, since, app.realm.position()).await?
        {
            // What was missed waits in there.
            wire.hurry = listening.too_slow().clone();
            self.listening = Some(listening);
            self.add_groups(groups);
            return Ok(());
        }
        let listening = app.live.hub.listen(&viewer, &added).await?;
        wire.hurry = listening.too_slow().clone();
        self.listening = Some(listening);
        self.add_groups(groups);
        self.tell_as_of_now(app, caller, wire, &added, true).await
    }

    fn check_room(&self, added: &Watched, groups: &[String]) -> Result<(), Problem> {
        let known = self.listening.as_ref().and_then(|listening| {
            listening.rewatch(|watched| watched.users.union(&added.users).count())
        });
        if known.unwrap_or_default() > WATCHED_USERS_MAX {
            let detail = format!("at most {WATCHED_USERS_MAX} users on one watch list");
            return Err(Problem::rule("too_many_users", detail));
        }
        let new = groups.iter().filter(|group| !self.groups.contains(group)).count();
        if self.groups.len() + new > WATCHED_GROUPS_MAX {
            let detail = format!("at most {WATCHED_GROUPS_MAX} groups on one watch list");
            return Err(Problem::rule("too_many_groups", detail));
        }
        Ok(())
    }

    fn add_groups(&mut self, groups: Vec<String>) {
        for group in groups {
            if !self.groups.contains(&group) {
                self.groups.push(group);
            }
        }
    }

    /// `first`: these are all who are watched.
    async fn tell_as_of_now(
        &mut self,
        app: &App,
        caller: &Caller,
        wire: &mut Wire,
        fresh: &Watched,
        first: bool,
    ) -> Result<(), Failed> {
        let (items, mut position) = app.snapshot(caller, fresh).await?;
        if let Some(listening) = &mut self.listening {
            let mut told: HashSet<UserId> = fresh.users.clone();
            told.extend(items.iter().map(|item| item.user_id.clone()));
            listening.told_up_to(position, (!fresh.everybody).then_some(told));
            // Of those watched before, changes below it may still be on their way.
            if !first {
                position = position.min(listening.position());
            }
        }
        let items = items.as_slice();
        wire.say(&ServerFrame::Snapshot { items, position }).await?;
        Ok(())
    }

    /// Takes off the list; none: everybody.
    pub(super) async fn unwatch(
        &mut self,
        app: &App,
        caller: &Caller,
        named: Option<Named>,
    ) -> Result<(), Problem> {
        let Some(named) = named else {
            *self = Self::default();
            return Ok(());
        };
        let left: Vec<String> =
            self.groups.iter().filter(|group| !named.groups.contains(group)).cloned().collect();
        let members = app.members(caller, &left).await?;
        self.groups = left;
        if let Some(listening) = &self.listening {
            listening.rewatch(|watched| {
                watched.users.retain(|user| !named.users.contains(user));
                watched.members = members;
            });
        }
        Ok(())
    }

    /// Whether there are groups whose members may change.
    pub(super) fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Looks up who is in the watched groups now; newcomers are told of.
    pub(super) async fn look_at_groups(
        &mut self,
        app: &App,
        caller: &Caller,
        wire: &mut Wire,
    ) -> Result<(), Failed> {
        let members = app.members(caller, &self.groups).await?;
        let Some(listening) = &self.listening else { return Ok(()) };
        let newcomers = listening.rewatch(|watched| {
            let newcomers: HashSet<_> = members.difference(&watched.members).copied().collect();
            watched.members = members;
            newcomers
        });
        let members = newcomers.ok_or(End::TooSlow)?;
        if members.is_empty() {
            return Ok(());
        }
        let fresh = Watched { members, ..Watched::default() };
        self.tell_as_of_now(app, caller, wire, &fresh, false).await
    }

    /// The next change. Never, while nobody is watched. Nothing is lost if the call is given up.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        match &mut self.listening {
            Some(listening) => listening.next().await,
            None => std::future::pending().await,
        }
    }

    /// The next change, if it is there.
    pub(super) fn try_next(&mut self) -> Option<Heard> {
        self.listening.as_mut()?.try_next()
    }

    /// Everything watched up to it was taken out.
    pub(super) fn position(&mut self, app: &App) -> Position {
        match &mut self.listening {
            Some(listening) => listening.position(),
            None => self.resume_from.unwrap_or_else(|| app.realm.position()),
        }
    }
}

/// Adds; who was not on the list before.
fn add(watched: &mut Watched, added: &Watched) -> Watched {
    let fresh = Watched {
        everybody: added.everybody,
        users: added.users.difference(&watched.users).cloned().collect(),
        members: added.members.difference(&watched.members).copied().collect(),
    };
    watched.everybody |= added.everybody;
    watched.users.extend(added.users.iter().cloned());
    watched.members.extend(&added.members);
    fresh
}
