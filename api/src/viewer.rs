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
use crate::problem::Problem;
use crate::shapes::StatusBody;

/// Roles that see everybody, whatever the policy says of visibility.
const SEE_ALL: &[Role] = &[Role::Service, Role::Auditor, Role::Admin, Role::Analyst];
/// Roles that may look at a group without belonging to it.
const SEE_GROUPS: &[Role] = &[Role::Service, Role::Auditor, Role::Admin];

/// What one caller may see. Made for one request; whoever lives longer makes it anew each second,
/// which costs a query only where the caller's groups have changed.
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
    /// Whether that user exists for this caller. Costs one search for each of the caller's groups.
    pub fn may_see(&self, user: UserNo) -> bool {
        match &self.sight {
            Sight::Everybody => true,
            Sight::Mates { own, mates } => *own == Some(user) || mates.contains(user),
        }
    }

    /// What this caller may see of a user who may be seen.
    pub fn audience(&self, user: &UserId) -> Audience {
        if self.entitled || self.user_id == *user { Audience::Entitled } else { Audience::Others }
    }

    /// A user's status as this caller may see it; none: not at all.
    pub fn status(&self, seen: Seen<'_>) -> Option<StatusBody> {
        self.may_see(seen.user_no).then(|| StatusBody::of(seen, self.audience(seen.user_id)))
    }

    /// The status as which a user stands in this caller's lists; none: not at all.
    pub fn listed(&self, seen: Seen<'_>) -> Option<Status> {
        self.may_see(seen.user_no).then(|| word(seen, self.audience(seen.user_id)))
    }

    /// The status as which a user is counted; none: not at all. The caller's own invisibility is
    /// counted as others see it: a count is nobody's own.
    pub fn counted(&self, seen: Seen<'_>) -> Option<Status> {
        let audience = if self.entitled { Audience::Entitled } else { Audience::Others };
        self.may_see(seen.user_no).then(|| word(seen, audience))
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
                let mates = self.groups.members(&self.own_groups(caller, own).await?).await?;
                Sight::Mates { own, mates }
            }
            Visibility::Groups | Visibility::All => Sight::Everybody,
        };
        let (user_id, entitled) = (caller.user_id.clone(), caller.has_any(ENTITLED));
        Ok(Viewer { user_id, entitled, sight })
    }

    /// 403 `forbidden` unless the caller belongs to the group or may look at every group.
    pub async fn may_look_at(&self, caller: &Caller, group: &GroupName) -> Result<(), Problem> {
        if caller.has_any(SEE_GROUPS) || names_group(caller, group) {
            return Ok(());
        }
        let own = self.realm.names().find(&caller.user_id).await?;
        if let Some(own) = own
            && self.groups.members(std::slice::from_ref(group)).await?.contains(own)
        {
            return Ok(());
        }
        Err(Problem::forbidden("only members of this group may look at it"))
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

fn names_group(caller: &Caller, group: &GroupName) -> bool {
    caller.groups.iter().any(|name| name == group.as_str())
}
