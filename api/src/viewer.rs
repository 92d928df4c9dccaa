//! Whom a caller may see at all, and how: the one place that decides it for every output.
//!
//! Who may not be seen is answered like a user never seen: not found, `unknown`, in no list and no
//! count. How somebody is shown who may be seen is `domain::shown`'s to say.

use domain::policy::Visibility;
use domain::{Audience, GroupName, Status, UserId, UserNo};
use projections::groups::{GROUPS_OF_USER_MAX, Members};
use projections::realm::Seen;

use crate::app::{App, ENTITLED};
use crate::auth::{Caller, Role};
use crate::live::change::{Change, Told};
use crate::problem::Problem;
use crate::shapes::StatusBody;

/// Roles that see everybody, whatever the policy says of visibility.
const SEE_ALL: &[Role] = &[Role::Service, Role::Auditor, Role::Admin, Role::Analyst];
/// Roles that may look at a group without belonging to it.
const SEE_GROUPS: &[Role] = &[Role::Service, Role::Auditor, Role::Admin];

/// What one caller may see. Made for one request; a feed makes it anew each second, which costs a
/// query only where the caller's groups have changed.
#[derive(Debug, Clone)]
pub struct Viewer {
    user_id: UserId,
    entitled: bool,
    sight: Sight,
}

#[derive(Debug, Clone)]
enum Sight {
    Everybody,
    /// The caller and the members of the caller's groups.
    Mates {
        own: Option<UserNo>,
        mates: Members,
    },
}

impl Viewer {
    /// Whether what happens to that user may concern this caller: what others see of the invisible
    /// says by itself that it is nothing. Costs a search for each of the caller's groups.
    pub fn may_see(&self, user: UserNo) -> bool {
        match &self.sight {
            Sight::Everybody => true,
            Sight::Mates { own, mates } => *own == Some(user) || mates.contains(user),
        }
    }

    /// Whether that user exists for this caller, as of now.
    pub fn knows(&self, user: UserNo, invisible: bool) -> bool {
        match &self.sight {
            Sight::Everybody => true,
            Sight::Mates { own, mates } => *own == Some(user) || mates.shows(user, invisible),
        }
    }

    /// Whether an invisible user is so to this caller.
    pub fn is_hidden(&self, user: &UserId, invisible: bool) -> bool {
        invisible && self.audience(user) == Audience::Others
    }

    fn sees(&self, seen: Seen<'_>) -> bool {
        self.knows(seen.user_no, seen.state.invisible)
    }

    /// Whether there may be users who do not exist for this caller.
    pub fn is_limited(&self) -> bool {
        matches!(self.sight, Sight::Mates { .. })
    }

    /// The same caller, seeing nobody.
    #[must_use]
    pub fn blind(&self) -> Self {
        let sight = Sight::Mates { own: None, mates: Members::default() };
        Self { sight, ..self.clone() }
    }

    /// Whether this is certainly what the other one sees, too.
    pub fn sees_as(&self, other: &Self) -> bool {
        match (&self.sight, &other.sight) {
            (Sight::Everybody, Sight::Everybody) => true,
            (
                Sight::Mates { own, mates },
                Sight::Mates { own: others_own, mates: others_mates },
            ) => own == others_own && mates.is_same(others_mates),
            (Sight::Everybody, Sight::Mates { .. }) | (Sight::Mates { .. }, Sight::Everybody) => {
                false
            }
        }
    }

    /// What this caller is told of a change; none, where nothing that it is shown has changed.
    pub fn told<'a>(&self, change: &'a Change) -> Option<&'a Told> {
        let told = change.told(self.audience(&change.user_id));
        told.filter(|_| self.may_see(change.user_no))
    }

    /// What this caller may see of a user who may be seen.
    pub fn audience(&self, user: &UserId) -> Audience {
        if self.entitled || self.user_id == *user { Audience::Entitled } else { Audience::Others }
    }

    /// A user's status as this caller may see it; none: not at all.
    pub fn status(&self, seen: Seen<'_>) -> Option<StatusBody> {
        self.sees(seen).then(|| StatusBody::of(seen, self.audience(seen.user_id)))
    }

    /// The status as which a user stands in this caller's lists; none: not at all.
    pub fn listed(&self, seen: Seen<'_>) -> Option<Status> {
        self.sees(seen).then(|| word(seen, self.audience(seen.user_id)))
    }

    /// The status as which a user is counted; none: not at all. The caller's own invisibility is
    /// counted as others see it: a count is nobody's own.
    pub fn counted(&self, seen: Seen<'_>) -> Option<Status> {
        let audience = if self.entitled { Audience::Entitled } else { Audience::Others };
        self.sees(seen).then(|| word(seen, audience))
    }
}

fn word(seen: Seen<'_>, audience: Audience) -> Status {
    match audience {
        Audience::Entitled => seen.state.status,
        Audience::Others => seen.state.shown_status(),
    }
}

impl App {
    /// What this caller may see as of now, by the policy in force.
    pub async fn viewer(&self, caller: &Caller) -> Result<Viewer, Problem> {
        let sight = match self.realm.policy().visibility {
            Visibility::Groups if !caller.has_any(SEE_ALL) => {
                let own = self.realm.names().find(&caller.user_id).await?;
                Sight::Mates { own, mates: self.mates(caller, own).await? }
            }
            Visibility::Groups | Visibility::All => Sight::Everybody,
        };
        let (user_id, entitled) = (caller.user_id.clone(), caller.has_any(ENTITLED));
        Ok(Viewer { user_id, entitled, sight })
    }

    /// The members of the caller's groups, the caller among them if it is one.
    pub async fn mates(&self, caller: &Caller, own: Option<UserNo>) -> Result<Members, Problem> {
        Ok(self.groups.members(&self.own_groups(caller, own).await?).await?)
    }

    /// 403 `forbidden` unless the caller belongs to the group or may look at every group.
    pub async fn may_look_at(&self, caller: &Caller, group: &GroupName) -> Result<(), Problem> {
        if self.sees_group(caller, group).await? {
            return Ok(());
        }
        Err(Problem::forbidden("only members of this group may look at it"))
    }

    /// Whether the caller belongs to the group or may look at every group.
    pub async fn sees_group(&self, caller: &Caller, group: &GroupName) -> Result<bool, Problem> {
        Ok(caller.has_any(SEE_GROUPS) || self.belongs(caller, group).await?)
    }

    /// Whether the caller belongs to a group: by its token, by what is stored, or as a visitor.
    pub async fn belongs(&self, caller: &Caller, group: &GroupName) -> Result<bool, Problem> {
        if names_group(caller, group) {
            return Ok(true);
        }
        let Some(own) = self.realm.names().find(&caller.user_id).await? else { return Ok(false) };
        Ok(self.groups.members(std::slice::from_ref(group)).await?.contains(own))
    }

    /// The groups to which the caller belongs: by what is stored, and by the token.
    async fn own_groups(
        &self,
        caller: &Caller,
        own: Option<UserNo>,
    ) -> Result<Vec<GroupName>, Problem> {
        let mut groups: Vec<GroupName> =
            caller.groups.iter().filter_map(|name| name.parse().ok()).collect();
        groups.truncate(GROUPS_OF_USER_MAX as usize);
        if let Some(own) = own {
            groups.extend(self.groups.groups_of(own).await?.iter().cloned());
        }
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }
}

/// Whether the caller's token says so.
pub fn names_group(caller: &Caller, group: &GroupName) -> bool {
    caller.groups.iter().any(|name| name == group.as_str())
}
