//! Groups: who belongs to which.
//!
//! Asked often, since watch lists and visibility are made of groups: each set of members is kept
//! for [`STALE_AFTER`]. A change through this node holds here at once, on others within that time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use domain::{GroupName, Timestamp, UserId, UserNo};
use sqlx::{PgPool, Row};

use crate::Error;

/// Members of one group.
pub const MEMBERS_MAX: u32 = 10_000;
/// Groups that one user is a stored member of.
pub const GROUPS_OF_USER_MAX: u32 = 1_000;
/// How long a set of members, or of groups, is believed.
pub const STALE_AFTER: Duration = Duration::from_secs(1);
/// Sets that a node keeps; when there are so many, those no longer believed go, or else all.
const REMEMBERED_MAX: usize = 10_000;

/// What became of a wish to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// A member, since then.
    Since(Timestamp),
    /// The group has [`MEMBERS_MAX`] members.
    GroupFull,
    /// The user is in [`GROUPS_OF_USER_MAX`] groups.
    TooManyGroups,
}

/// The members of some groups: what one caller is concerned with. Cheap to clone and to make; a
/// look costs at most one search for each group.
#[derive(Debug, Clone, Default)]
pub struct Members(Vec<Arc<HashSet<UserNo>>>);

impl Members {
    /// Whether somebody is a member of any of them.
    pub fn contains(&self, user: UserNo) -> bool {
        self.0.iter().any(|group| group.contains(&user))
    }

    /// Everybody, each once, in no order.
    pub fn all(&self) -> HashSet<UserNo> {
        self.0.iter().flat_map(|group| group.iter().copied()).collect()
    }
}

struct Kept<T> {
    /// When it was asked for: it is at least as new as that.
    asked: Instant,
    value: T,
}

impl<T> Kept<T> {
    fn is_fresh(&self) -> bool {
        self.asked.elapsed() < STALE_AFTER
    }
}

/// A node's way to the groups of its realm.
pub struct Groups {
    pool: PgPool,
    members: DashMap<GroupName, Kept<Arc<HashSet<UserNo>>>>,
    of_users: DashMap<UserNo, Kept<Arc<[GroupName]>>>,
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Groups").field("members", &self.members.len()).finish_non_exhaustive()
    }
}

impl Groups {
    /// Nothing known yet.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, members: DashMap::new(), of_users: DashMap::new() }
    }

    /// Makes somebody a member. Repeated, it answers the same.
    pub async fn join(&self, group: &GroupName, user: UserNo) -> Result<Joined, Error> {
        let row = sqlx::query("select joined_at, refusal from join_group($1, $2, $3, $4)")
            .bind(group.as_str())
            .bind(user.0)
            .bind(MEMBERS_MAX as i32)
            .bind(GROUPS_OF_USER_MAX as i32)
            .fetch_one(&self.pool)
            .await?;
        self.forget(group, user);
        match row.try_get::<Option<&str>, _>("refusal")? {
            None => Ok(Joined::Since(row.try_get("joined_at")?)),
            Some("group_full") => Ok(Joined::GroupFull),
            Some("too_many_groups") => Ok(Joined::TooManyGroups),
            Some(other) => Err(Error::Undecodable(format!("join_group answers {other}"))),
        }
    }

    /// Ends a membership; false: there was none.
    pub async fn leave(&self, group: &GroupName, user: UserNo) -> Result<bool, Error> {
        let statement = "delete from membership where group_name = $1 and user_no = $2";
        let query = sqlx::query(statement).bind(group.as_str()).bind(user.0);
        let gone = query.execute(&self.pool).await?.rows_affected() > 0;
        self.forget(group, user);
        Ok(gone)
    }

    /// Members with their names, sorted by name, as the database has them now.
    pub async fn named(&self, group: &GroupName) -> Result<Vec<(UserNo, UserId)>, Error> {
        let rows: Vec<(i64, String)> = sqlx::query_as(
            // As programs sort, not as people do: names are compared with cursors.
            "select user_no, user_id from membership join account using (user_no)
              where group_name = $1 order by user_id collate \"C\"",
        )
        .bind(group.as_str())
        .fetch_all(&self.pool)
        .await?;
        let named = |(user, name): (i64, String)| {
            let name = name.parse().map_err(|_| Error::Undecodable("user_id".to_owned()))?;
            Ok((UserNo(user), name))
        };
        rows.into_iter().map(named).collect()
    }

    /// The groups of which a user is a stored member, at most [`STALE_AFTER`] old.
    pub async fn groups_of(&self, user: UserNo) -> Result<Arc<[GroupName]>, Error> {
        let kept = self.of_users.get(&user).filter(|kept| kept.is_fresh());
        if let Some(value) = kept.map(|kept| Arc::clone(&kept.value)) {
            return Ok(value);
        }
        let asked = Instant::now();
        let statement = "select group_name from membership where user_no = $1 order by group_name";
        let names: Vec<String> =
            sqlx::query_scalar(statement).bind(user.0).fetch_all(&self.pool).await?;
        let names: Result<Arc<[GroupName]>, Error> =
            names.iter().map(|name| parsed(name)).collect();
        let value = names?;
        make_room(&self.of_users);
        self.of_users.insert(user, Kept { asked, value: Arc::clone(&value) });
        Ok(value)
    }

    /// The members of some groups, at most [`STALE_AFTER`] old; one query for all that are not
    /// known so freshly.
    pub async fn members(&self, groups: &[GroupName]) -> Result<Members, Error> {
        let mut known = Vec::with_capacity(groups.len());
        let mut missing = Vec::new();
        for group in groups {
            match self.members.get(group).filter(|kept| kept.is_fresh()) {
                Some(kept) => known.push(Arc::clone(&kept.value)),
                None => missing.push(group),
            }
        }
        if !missing.is_empty() {
            known.extend(self.read(&missing).await?);
        }
        known.retain(|members| !members.is_empty());
        Ok(Members(known))
    }

    async fn read(&self, groups: &[&GroupName]) -> Result<Vec<Arc<HashSet<UserNo>>>, Error> {
        let asked = Instant::now();
        let names: Vec<&str> = groups.iter().map(|group| group.as_str()).collect();
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "select n, user_no from unnest($1::text[]) with ordinality g (group_name, n)
               join membership using (group_name)",
        )
        .bind(names)
        .fetch_all(&self.pool)
        .await?;
        let mut sets = vec![HashSet::new(); groups.len()];
        for (nth, user) in rows {
            if let Some(set) = sets.get_mut(nth as usize - 1) {
                set.insert(UserNo(user));
            }
        }
        let keep = |(set, group): (HashSet<UserNo>, &&GroupName)| {
            let value = Arc::new(set);
            make_room(&self.members);
            let kept = Kept { asked, value: Arc::clone(&value) };
            self.members.insert((*group).clone(), kept);
            value
        };
        Ok(sets.into_iter().zip(groups).map(keep).collect())
    }

    fn forget(&self, group: &GroupName, user: UserNo) {
        self.members.remove(group);
        self.of_users.remove(&user);
    }
}

fn parsed(name: &str) -> Result<GroupName, Error> {
    name.parse().map_err(|_| Error::Undecodable("the name of a group".to_owned()))
}

fn make_room<K: Eq + std::hash::Hash, T>(kept: &DashMap<K, Kept<T>>) {
    if kept.len() >= REMEMBERED_MAX {
        kept.retain(|_, kept| kept.is_fresh());
    }
    if kept.len() >= REMEMBERED_MAX {
        kept.clear();
    }
}
