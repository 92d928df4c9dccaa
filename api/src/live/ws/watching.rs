//! The watch list of one WebSocket.

use std::collections::HashSet;

use domain::{GroupName, Position, UserId, UserNo};
use projections::groups::Members;
use projections::realm::Consistency;

use super::wire::{End, Wire};
use crate::app::App;
use crate::auth::Caller;
use crate::limits::{WATCHED_GROUPS_MAX, WATCHED_USERS_MAX};
use crate::live::hub::Joined;
use crate::live::listening::{Heard, Listening};
use crate::live::watch::{Circles, Looked, Named, Snapshot, Watched};
use crate::problem::Problem;
use crate::viewer::Viewer;

/// Whom a connection watches.
#[derive(Debug, Default)]
pub(super) struct Watching {
    listening: Option<Listening>,
    circles: Circles,
    /// A resumed list that has to tell of all as of now, once it has told what was missed.
    look_anew: bool,
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

    /// Adds to the list; the statuses of those who are new on it. None: what was missed of them
    /// waits instead.
    pub(super) async fn watch(
        &mut self,
        app: &App,
        caller: &Caller,
        wire: &mut Wire,
        named: Option<Named>,
    ) -> Result<Option<Snapshot>, Failed> {
        let added = app.watched(caller, named.as_ref()).await?;
        let groups = named.map(|named| named.groups).unwrap_or_default();
        self.check_room(&added, &groups)?;
        for group in groups {
            if !self.circles.groups.contains(&group) {
                self.circles.groups.push(group);
            }
        }
        self.add(app, caller, wire, added).await
    }

    /// Adds those with whom the caller shares a group, whoever they are at the time; or everybody.
    pub(super) async fn watch_own(
        &mut self,
        app: &App,
        caller: &Caller,
        wire: &mut Wire,
        everybody: bool,
    ) -> Result<Option<Snapshot>, Failed> {
        self.circles.own = true;
        let members = app.members(caller, &self.circles).await?;
        let users = [caller.user_id.clone()].into();
        self.add(app, caller, wire, Watched { everybody, users, members }).await
    }

    async fn add(
        &mut self,
        app: &App,
        caller: &Caller,
        wire: &mut Wire,
        added: Watched,
    ) -> Result<Option<Snapshot>, Failed> {
        let viewer = app.viewer(caller).await?;
        if let Some(listening) = &mut self.listening {
            let members = app.members(caller, &self.circles).await?;
            // Whom the client did not name itself it may name, and wait for.
            let unasked = self.circles.own;
            let fresh = listening.rewatch(|watched| {
                let known = if unasked { Watched::default() } else { watched.clone() };
                let before = known.members;
                let fresh = Watched {
                    everybody: added.everybody,
                    users: added.users.difference(&known.users).cloned().collect(),
                    members: added.members,
                };
                watched.everybody |= added.everybody;
                watched.users.extend(added.users);
                watched.members = members;
                (fresh, before)
            });
            let (fresh, before) = fresh.ok_or(End::TooSlow)?;
            return self.as_of_now(app, &viewer, &fresh, &before).await.map(Some);
        }
        if let Some(since) = self.resume_from.take()
            && let Joined::Listening(listening) =
                app.live.hub.resume(&viewer, &added, since, app.realm.position()).await?
        {
            // What was missed waits in there.
            wire.hurry = listening.too_slow().clone();
            self.listening = Some(listening);
            self.look_anew = viewer.is_limited() || !self.circles.is_empty();
            return Ok(None);
        }
        let mut listening = app.live.hub.listen(&viewer, &added).await?;
        wire.hurry = listening.too_slow().clone();
        let snapshot = app.snapshot(&viewer, &added, Consistency::Usual).await;
        if let Ok((_, position)) = &snapshot {
            listening.told_up_to(*position, None);
        }
        self.listening = Some(listening);
        Ok(Some(snapshot?))
    }

    fn check_room(&self, added: &Watched, groups: &[GroupName]) -> Result<(), Problem> {
        let known = self.listening.as_ref().and_then(|listening| {
            listening.rewatch(|watched| watched.users.union(&added.users).count())
        });
        if known.unwrap_or_default() > WATCHED_USERS_MAX {
            let detail = format!("at most {WATCHED_USERS_MAX} users on one watch list");
            return Err(Problem::rule("too_many_users", detail));
        }
        let known = &self.circles.groups;
        let new = groups.iter().filter(|group| !known.contains(group)).count();
        if known.len() + new > WATCHED_GROUPS_MAX {
            let detail = format!("at most {WATCHED_GROUPS_MAX} groups on one watch list");
            return Err(Problem::rule("too_many_groups", detail));
        }
        Ok(())
    }

    /// Those who are new on the list. `before`: who was watched by group already.
    async fn as_of_now(
        &mut self,
        app: &App,
        viewer: &Viewer,
        fresh: &Watched,
        before: &Members,
    ) -> Result<Snapshot, Failed> {
        let (items, mut position) = app.snapshot_without(viewer, fresh, before).await?;
        if let Some(listening) = &mut self.listening {
            let mut told: HashSet<UserId> = fresh.users.clone();
            told.extend(items.iter().map(|item| item.user_id.clone()));
            listening.told_up_to(position, (!fresh.everybody).then_some(told));
            // Of those watched before, changes below it may still be on their way.
            position = position.min(listening.position());
        }
        Ok((items, position))
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
        let kept = |group: &&GroupName| !named.groups.contains(group);
        let groups = self.circles.groups.iter().filter(kept).cloned().collect();
        let left = Circles { groups, own: self.circles.own };
        let members = app.members(caller, &left).await?;
        self.circles = left;
        if let Some(listening) = &self.listening {
            listening.rewatch(|watched| {
                watched.users.retain(|user| !named.users.contains(user));
                watched.members = members;
            });
        }
        Ok(())
    }

    /// Whether whom it is about may change, but by a policy.
    pub(super) fn is_changing(&self) -> bool {
        let limited = self.listening.as_ref().is_some_and(Listening::is_limited);
        self.listening.is_some() && (limited || !self.circles.is_empty())
    }

    /// Whether to look at once.
    pub(super) fn wants_a_look(&self) -> bool {
        self.look_anew
    }

    /// Looks who is in the watched groups and who may be seen now.
    pub(super) async fn look_again(
        &mut self,
        app: &App,
        caller: &Caller,
    ) -> Result<Looked, Failed> {
        let Some(listening) = &mut self.listening else { return Ok(Looked::default()) };
        if std::mem::take(&mut self.look_anew) {
            listening.forget_seen();
        }
        match app.look_again(caller, &self.circles, listening).await {
            Ok(looked) => Ok(looked),
            Err(_) if listening.too_slow().is_cancelled() => Err(End::TooSlow.into()),
            Err(problem) => Err(problem.into()),
        }
    }

    /// Whether this user is watched and may be seen, as of the last look.
    pub(super) fn tells_of(&mut self, user_no: UserNo, user_id: &UserId) -> bool {
        let tells = |listening: &mut Listening| {
            listening
                .refocus(|sees, watched| sees.may_see(user_no) && watched.has(user_no, user_id))
        };
        self.listening.as_mut().and_then(tells).unwrap_or_default()
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
