//! Who watches whom: one watcher's list, and what it may see of those on it.

use std::collections::HashSet;
use std::sync::Arc;

use domain::{Audience, Position, UserId, UserNo};
use futures::future::BoxFuture;
use projections::realm::{Consistency, Seen};

use super::change::{Change, Told};
use crate::app::{App, ENTITLED};
use crate::auth::Caller;
use crate::limits::{GROUP_NAME_LENGTH_MAX, SNAPSHOT_USERS_MAX, USERS_MAX, WATCHED_GROUPS_MAX};
use crate::problem::Problem;
use crate::shapes::StatusBody;

/// The members of groups, if this caller may watch them.
pub type GroupsOf = Arc<
    dyn Fn(Caller, Vec<String>) -> BoxFuture<'static, Result<HashSet<UserNo>, Problem>>
        + Send
        + Sync,
>;

/// Where nobody keeps groups, none can be watched.
pub fn no_groups() -> GroupsOf {
    Arc::new(|_, _| {
        let refused = Problem::rule("groups_unavailable", "groups are not kept here");
        Box::pin(std::future::ready(Err(refused)))
    })
}

/// Who looks, and so what it may see.
#[derive(Debug, Clone)]
pub struct Viewer {
    user_id: UserId,
    entitled: bool,
}

impl Viewer {
    /// Of a token.
    pub fn of(caller: &Caller) -> Self {
        Self { user_id: caller.user_id.clone(), entitled: caller.has_any(ENTITLED) }
    }

    /// What it is told of a change; none, where nothing that it is shown has changed.
    pub fn told<'a>(&self, change: &'a Change) -> Option<&'a Told> {
        let entitled = self.entitled || change.user_id == self.user_id;
        change.told(if entitled { Audience::Entitled } else { Audience::Others })
    }
}

/// Whom somebody watches.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// Everybody, whoever else is named.
    pub everybody: bool,
    /// By name: also users who were never seen yet.
    pub users: HashSet<UserId>,
    /// By group: the members, as of the last look.
    pub members: HashSet<UserNo>,
}

impl Watched {
    /// Everybody.
    pub fn everybody() -> Self {
        Self { everybody: true, ..Self::default() }
    }

    /// Whether that user is among them.
    pub fn has(&self, user_no: UserNo, user_id: &UserId) -> bool {
        self.everybody || self.users.contains(user_id) || self.members.contains(&user_no)
    }
}

/// Which users and groups a client names.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// Users, each once.
    pub users: HashSet<UserId>,
    /// Groups, each once.
    pub groups: Vec<String>,
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
            if group.is_empty() || group.len() > GROUP_NAME_LENGTH_MAX || group.contains('\0') {
                return Err(Problem::rule("invalid_group", "this is no name of a group"));
            }
            if !named.groups.iter().any(|known| known == group) {
                named.groups.push(group.to_owned());
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
    /// The members of groups as of now; nobody's, without a question, where none is named.
    pub async fn members(
        &self,
        caller: &Caller,
        groups: &[String],
    ) -> Result<HashSet<UserNo>, Problem> {
        if groups.is_empty() {
            return Ok(HashSet::new());
        }
        (self.live.groups)(caller.clone(), groups.to_vec()).await
    }

    /// Whom these names mean, as of now.
    pub async fn watched(
        &self,
        caller: &Caller,
        named: Option<&Named>,
    ) -> Result<Watched, Problem> {
        let Some(named) = named else { return Ok(Watched::everybody()) };
        let members = self.members(caller, &named.groups).await?;
        Ok(Watched { everybody: false, users: named.users.clone(), members })
    }

    /// The statuses of those watched as this caller may see them, and the position as of which
    /// they are at least; what happens above it is told by changes.
    pub async fn snapshot(
        &self,
        caller: &Caller,
        watched: &Watched,
    ) -> Result<(Vec<StatusBody>, Position), Problem> {
        let position = self.realm.position();
        let look = |seen: Seen<'_>| StatusBody::of(seen, Self::audience(caller, seen.user_id));
        let mut items = Vec::new();
        if watched.everybody {
            if self.realm.roster().users_count() > SNAPSHOT_USERS_MAX {
                let detail = format!("there are more than {SNAPSHOT_USERS_MAX} users: name some");
                return Err(Problem::rule("too_many_users", detail));
            }
            self.realm.refresh_doubtful().await?;
            self.realm.each(|seen| items.push(look(seen)));
        } else {
            let names: Vec<UserId> = watched.users.iter().cloned().collect();
            let found = self.realm.names().find_all(&names).await?;
            let mut numbers: HashSet<UserNo> = found.into_iter().flatten().collect();
            numbers.extend(&watched.members);
            let numbers: Vec<UserNo> = numbers.into_iter().collect();
            let found = self.realm.look(&numbers, Consistency::Usual, look).await?;
            items.extend(found.into_iter().flatten());
        }
        items.sort_unstable_by(|one, other| one.user_id.cmp(&other.user_id));
        Ok((items, position))
    }
}
