//! Who watches whom: one watcher's list, and how it changes with groups and with what may be seen.

use std::collections::HashSet;

use domain::{GroupName, Position, UserId, UserNo};
use projections::groups::Members;
use projections::realm::{Consistency, Seen};

use super::listening::Listening;
use crate::app::App;
use crate::auth::Caller;
use crate::limits::{SNAPSHOT_USERS_MAX, USERS_MAX, WATCHED_GROUPS_MAX};
use crate::problem::Problem;
use crate::shapes::StatusBody;
use crate::viewer::Viewer;

/// Whom somebody watches.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// Everybody, whoever else is named.
    pub everybody: bool,
    /// By name: also users who were never seen yet.
    pub users: HashSet<UserId>,
    /// By group: the members, as of the last look.
    pub members: Members,
}

impl Watched {
    /// Everybody.
    pub fn everybody() -> Self {
        Self { everybody: true, ..Self::default() }
    }

    /// Whether that user is among them.
    pub fn has(&self, user_no: UserNo, user_id: &UserId) -> bool {
        self.everybody || self.users.contains(user_id) || self.members.contains(user_no)
    }
}

/// Whose members are watched, whoever they are at the time.
#[derive(Debug, Clone, Default)]
pub struct Circles {
    /// These groups', each once.
    pub groups: Vec<GroupName>,
    /// Those of all groups to which the caller belongs.
    pub own: bool,
}

impl Circles {
    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && !self.own
    }
}

/// Statuses as of a position at least; what happens above it is told by changes.
pub type Snapshot = (Vec<StatusBody>, Position);

/// What a second look has found.
#[derive(Debug, Default)]
pub struct Looked {
    /// Who came in, or may be seen now.
    pub came: Option<Snapshot>,
    /// Somebody may have gone, or may not be seen any longer.
    pub moved: bool,
}

/// Which users and groups a client names.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// Users, each once.
    pub users: HashSet<UserId>,
    /// Groups, each once.
    pub groups: Vec<GroupName>,
}

impl Named {
    /// Errors: 422 for what is no `user_id`, no group, or too many.
    pub fn parse<'a>(
        users: impl IntoIterator<Item = &'a str>,
        groups: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Problem> {
        let users: Result<HashSet<UserId>, _> = users.into_iter().map(str::parse).collect();
        let users = users.map_err(|_| Problem::invalid_user_id())?;
        if users.len() > USERS_MAX {
            let detail = format!("at most {USERS_MAX} users at once");
            return Err(Problem::rule("too_many_users", detail));
        }
        let mut named = Self { users, groups: Vec::new() };
        for group in groups {
            let group: GroupName = group.parse().map_err(|_| Problem::invalid_group())?;
            if !named.groups.contains(&group) {
                named.groups.push(group);
            }
        }
        if named.groups.len() > WATCHED_GROUPS_MAX {
            let detail = format!("at most {WATCHED_GROUPS_MAX} groups at once");
            return Err(Problem::rule("too_many_groups", detail));
        }
        Ok(named)
    }

    /// Of the parameters `users` and `groups`; neither: everybody, as none.
    pub fn of_query(users: Option<&str>, groups: Option<&str>) -> Result<Option<Self>, Problem> {
        if users.is_none() && groups.is_none() {
            return Ok(None);
        }
        let split = |list: Option<&'_ str>| -> Vec<String> {
            let parts = list.unwrap_or_default().split(',').filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        };
        let (users, groups) = (split(users), split(groups));
        Self::parse(users.iter().map(String::as_str), groups.iter().map(String::as_str)).map(Some)
    }
}

impl App {
    /// Whom these names mean, as of now. Errors: 403 `forbidden`, with those `groups` that this
    /// caller may not look at, whether there are such or not: a client goes on without them.
    pub async fn watched(
        &self,
        caller: &Caller,
        named: Option<&Named>,
    ) -> Result<Watched, Problem> {
        let Some(named) = named else { return Ok(Watched::everybody()) };
        let mut refused = Vec::new();
        for group in &named.groups {
            if !self.sees_group(caller, group).await? {
                refused.push(group);
            }
        }
        if !refused.is_empty() {
            let detail = "only members of these groups may look at them";
            return Err(Problem::forbidden(detail).with("groups", refused));
        }
        let members = self.groups.members(&named.groups).await?;
        Ok(Watched { everybody: false, users: named.users.clone(), members })
    }

    /// Who is in these circles now. A group that the caller may no longer look at has nobody.
    pub async fn members(&self, caller: &Caller, circles: &Circles) -> Result<Members, Problem> {
        let mut groups = Vec::with_capacity(circles.groups.len());
        for group in &circles.groups {
            if self.sees_group(caller, group).await? {
                groups.push(group.clone());
            }
        }
        let members = self.groups.members(&groups).await?;
        if !circles.own {
            return Ok(members);
        }
        let own = self.realm.names().find(&caller.user_id).await?;
        Ok(members.and(self.mates(caller, own).await?))
    }

    /// The statuses of those watched as this viewer may see them.
    pub async fn snapshot(
        &self,
        viewer: &Viewer,
        watched: &Watched,
        consistency: Consistency,
    ) -> Result<Snapshot, Problem> {
        self.snapshot_of(viewer, watched, consistency, |_, _| true).await
    }

    /// The same, without those who were watched by group before.
    pub async fn snapshot_without(
        &self,
        viewer: &Viewer,
        watched: &Watched,
        before: &Members,
    ) -> Result<Snapshot, Problem> {
        let new = |user_no, user_id: &UserId| {
            watched.everybody || watched.users.contains(user_id) || !before.contains(user_no)
        };
        self.snapshot_of(viewer, watched, Consistency::Usual, new).await
    }

    /// Of some of them.
    async fn snapshot_of(
        &self,
        viewer: &Viewer,
        watched: &Watched,
        consistency: Consistency,
        wanted: impl Fn(UserNo, &UserId) -> bool,
    ) -> Result<Snapshot, Problem> {
        let position = self.realm.position();
        let look = |seen: Seen<'_>| {
            let named = watched.everybody || watched.users.contains(seen.user_id);
            let hidden = viewer.is_hidden(seen.user_id, seen.state.invisible);
            let known = named || watched.members.shows(seen.user_no, hidden);
            let told = known && wanted(seen.user_no, seen.user_id);
            told.then(|| viewer.status(seen)).flatten()
        };
        let mut items = Vec::new();
        if watched.everybody {
            if self.realm.roster().users_count() > SNAPSHOT_USERS_MAX {
                let detail = format!("there are more than {SNAPSHOT_USERS_MAX} users: name some");
                return Err(Problem::rule("too_many_users", detail));
            }
            self.realm.refresh_doubtful().await?;
            self.realm.each(|seen| items.extend(look(seen)));
        } else {
            let names: Vec<UserId> = watched.users.iter().cloned().collect();
            let found = self.realm.names().find_all(&names).await?;
            let mut numbers = watched.members.all();
            numbers.extend(found.into_iter().flatten());
            let numbers: Vec<UserNo> = numbers.into_iter().collect();
            let found = self.realm.look(&numbers, consistency, look).await?;
            items.extend(found.into_iter().flatten().flatten());
        }
        items.sort_unstable_by(|one, other| one.user_id.cmp(&other.user_id));
        Ok((items, position))
    }

    /// Looks anew whom the caller may see and who is in the circles: others are not told any
    /// longer, and who came in is told of as of now. Errors: 503 `too_slow` where the hub has
    /// dropped the listener.
    pub async fn look_again(
        &self,
        caller: &Caller,
        circles: &Circles,
        listening: &mut Listening,
    ) -> Result<Looked, Problem> {
        let viewer = self.viewer(caller).await?;
        let members = self.members(caller, circles).await?;
        let changed = listening.refocus(|sees, watched| {
            if viewer.sees_as(sees) && members.is_same(&watched.members) {
                return None;
            }
            let saw = std::mem::replace(sees, viewer.clone());
            let had = watched.clone();
            watched.members = members;
            Some((saw, had, watched.clone()))
        });
        let Some((saw, had, has)) = changed.ok_or_else(Problem::too_slow)? else {
            return Ok(Looked::default());
        };
        let came = |user_no, user_id: &UserId| !saw.may_see(user_no) || !had.has(user_no, user_id);
        let told = self.snapshot_of(&viewer, &has, Consistency::Usual, came).await;
        if told.is_err() {
            // Who came in is told of after the next look, and till then nobody.
            listening.forget_seen();
        }
        let (items, position) = told?;
        if items.is_empty() {
            return Ok(Looked { came: None, moved: true });
        }
        let told = items.iter().map(|item| item.user_id.clone()).collect();
        listening.told_up_to(position, Some(told));
        // Of the others changes below it may still be on their way.
        let position = position.min(listening.position());
        Ok(Looked { came: Some((items, position)), moved: true })
    }
}
