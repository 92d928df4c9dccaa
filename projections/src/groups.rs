//! Groups: who belongs to which.
//!
//! Asked often, since watch lists and visibility are made of groups: sets are kept in memory, and
//! what changed of them is read twice a second at most, however many ask. A change through this
//! node holds here at once, on others within [`STALE_AFTER`].

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use domain::{GroupName, SessionId, Timestamp, UserId, UserNo};
use sqlx::{PgPool, Row};

use crate::Error;

/// Members of one group.
pub const MEMBERS_MAX: u32 = 10_000;
/// Groups that one user is a stored member of.
pub const GROUPS_OF_USER_MAX: u32 = 1_000;
/// How old what is answered may be.
pub const STALE_AFTER: Duration = Duration::from_secs(1);
/// Between two looks at the changes; another one who asks meanwhile need not wait for it.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Changes are kept for an hour. A node that did not look for so long forgets all it knew.
const CHANGES_TRUSTED_FOR: Duration = Duration::from_mins(30);
/// Changes read at once; when there are more, all sets are forgotten instead.
const CHANGES_MAX: i64 = 10_000;
/// Sets of each sort that a node keeps; when there are so many, all are forgotten.
const REMEMBERED_MAX: usize = 50_000;

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

/// What became of a wish to visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// There, for as long as the session lives.
    Begun,
    /// The group is its service's, and this is none of its members.
    NotAMember,
    /// The group has [`MEMBERS_MAX`] visitors.
    GroupFull,
}

/// Who belongs to one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Circle {
    stored: HashSet<UserNo>,
    /// For as long as a session lives.
    visiting: HashSet<UserNo>,
}

/// The members of some groups: what one caller is concerned with. Cheap to clone and to make; a
/// look costs at most two searches for each group.
#[derive(Debug, Clone, Default)]
pub struct Members(Vec<Arc<Circle>>);

impl Members {
    /// Whether somebody is a member of any of them, or visits one.
    pub fn contains(&self, user: UserNo) -> bool {
        self.0.iter().any(|group| group.stored.contains(&user) || group.visiting.contains(&user))
    }

    /// Whether others may know it: a visitor is live, and who is `invisible` is not.
    pub fn shows(&self, user: UserNo, invisible: bool) -> bool {
        if invisible {
            self.0.iter().any(|group| group.stored.contains(&user))
        } else {
            self.contains(user)
        }
    }

    /// Whether these are the same sets, as read at the same time: nobody came or went.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Everybody, each once, in no order.
    pub fn all(&self) -> HashSet<UserNo> {
        self.0
            .iter()
            .flat_map(|group| group.stored.iter().chain(&group.visiting))
            .copied()
            .collect()
    }
}

/// A member of a group, with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user_no: UserNo,
    /// The same, as others say it.
    pub user_id: UserId,
    /// For as long as a session lives, and not longer.
    pub visits: bool,
}

/// A node's way to the groups of its realm.
pub struct Groups {
    pool: PgPool,
    members: DashMap<GroupName, Arc<Circle>>,
    of_users: DashMap<UserNo, Arc<[GroupName]>>,
    /// Changes up to here were heeded.
    known: AtomicI64,
    /// When they were last asked for.
    looked: Mutex<Option<Instant>>,
    looking: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Groups").field("members", &self.members.len()).finish_non_exhaustive()
    }
}

impl Groups {
    /// Nothing known yet.
    pub fn new(pool: PgPool) -> Self {
        Self {
            pool,
            members: DashMap::new(),
            of_users: DashMap::new(),
            known: AtomicI64::new(0),
            looked: Mutex::new(None),
            looking: tokio::sync::Mutex::new(()),
        }
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
        let query = sqlx::query_scalar("select leave_group($1, $2)");
        let gone = query.bind(group.as_str()).bind(user.0).fetch_one(&self.pool).await?;
        self.forget(group, user);
        Ok(gone)
    }

    /// Whether that user may enter a group: it has no stored members, or the user is one.
    pub async fn is_open_to(&self, group: &GroupName, user: Option<UserNo>) -> Result<bool, Error> {
        let statement = "select not exists (select from membership where group_name = $1)
            or exists (select from membership where group_name = $1 and user_no = $2)";
        let query = sqlx::query_scalar(statement).bind(group.as_str());
        Ok(query.bind(user.map(|user| user.0)).fetch_one(&self.pool).await?)
    }

    /// Makes somebody a member for as long as a session lives. `belongs`: by the token, whatever
    /// is stored. Repeatable.
    pub async fn enter(
        &self,
        group: &GroupName,
        user: UserNo,
        session: SessionId,
        belongs: bool,
    ) -> Result<Visit, Error> {
        let refusal: Option<String> = sqlx::query_scalar("select enter_group($1, $2, $3, $4, $5)")
            .bind(group.as_str())
            .bind(user.0)
            .bind(session)
            .bind(belongs)
            .bind(MEMBERS_MAX as i32)
            .fetch_one(&self.pool)
            .await?;
        self.forget(group, user);
        match refusal.as_deref() {
            None => Ok(Visit::Begun),
            Some("not_a_member") => Ok(Visit::NotAMember),
            Some("group_full") => Ok(Visit::GroupFull),
            Some(other) => Err(Error::Undecodable(format!("enter_group answers {other}"))),
        }
    }

    /// Ends the visits of a session that is over; none: of all those that are.
    pub async fn end_visits(&self, session: Option<SessionId>) -> Result<(), Error> {
        sqlx::query("select end_visits($1)").bind(session).execute(&self.pool).await?;
        Ok(())
    }

    /// Members with their names, sorted by name, as the database has them now.
    pub async fn named(&self, group: &GroupName) -> Result<Vec<Member>, Error> {
        let rows: Vec<(i64, String, bool)> = sqlx::query_as(
            // As programs sort, not as people do: names are compared with cursors.
            "select a.user_no, a.user_id, bool_and(m.visits)
               from (select user_no, false as visits from membership where group_name = $1
                     union all
                     select user_no, true from group_visit where group_name = $1) m
               join account a using (user_no)
              group by a.user_no, a.user_id order by a.user_id collate \"C\"",
        )
        .bind(group.as_str())
        .fetch_all(&self.pool)
        .await?;
        let named = |(user, name, visits): (i64, String, bool)| {
            let user_id = name.parse().map_err(|_| Error::Undecodable("user_id".to_owned()))?;
            Ok(Member { user_no: UserNo(user), user_id, visits })
        };
        rows.into_iter().map(named).collect()
    }

    /// The groups of which a user is a member or visitor, at most [`STALE_AFTER`] old.
    pub async fn groups_of(&self, user: UserNo) -> Result<Arc<[GroupName]>, Error> {
        self.catch_up().await?;
        if let Some(groups) = self.of_users.get(&user) {
            return Ok(Arc::clone(&groups));
        }
        let known = self.known.load(Ordering::Acquire);
        let statement = "select group_name from membership where user_no = $1
            union select group_name from group_visit where user_no = $1 order by group_name";
        let names: Vec<String> =
            sqlx::query_scalar(statement).bind(user.0).fetch_all(&self.pool).await?;
        let names: Result<Arc<[GroupName]>, Error> =
            names.iter().map(|name| parsed(name)).collect();
        let groups = names?;
        self.keep(&self.of_users, &user, &groups, known);
        Ok(groups)
    }

    /// The members of some groups, at most [`STALE_AFTER`] old; one query for all that are not
    /// known so freshly.
    pub async fn members(&self, groups: &[GroupName]) -> Result<Members, Error> {
        self.catch_up().await?;
        let mut known = Vec::with_capacity(groups.len());
        let mut missing = Vec::new();
        for group in groups {
            match self.members.get(group) {
                Some(members) => known.push(Arc::clone(&members)),
                None => missing.push(group),
            }
        }
        if !missing.is_empty() {
            known.extend(self.read(&missing).await?);
        }
        known.retain(|circle| !circle.stored.is_empty() || !circle.visiting.is_empty());
        Ok(Members(known))
    }

    async fn read(&self, groups: &[&GroupName]) -> Result<Vec<Arc<Circle>>, Error> {
        let known = self.known.load(Ordering::Acquire);
        let names: Vec<&str> = groups.iter().map(|group| group.as_str()).collect();
        let rows: Vec<(i64, i64, bool)> = sqlx::query_as(
            "select n, user_no, false from unnest($1::text[]) with ordinality g (group_name, n)
               join membership using (group_name)
             union all
             select n, user_no, true from unnest($1::text[]) with ordinality g (group_name, n)
               join group_visit using (group_name)",
        )
        .bind(names)
        .fetch_all(&self.pool)
        .await?;
        let mut circles = vec![Circle::default(); groups.len()];
        for (nth, user, visits) in rows {
            if let Some(circle) = circles.get_mut(nth as usize - 1) {
                let set = if visits { &mut circle.visiting } else { &mut circle.stored };
                set.insert(UserNo(user));
            }
        }
        let keep = |(circle, group): (Circle, &&GroupName)| {
            let members = Arc::new(circle);
            self.keep(&self.members, group, &members, known);
            members
        };
        Ok(circles.into_iter().zip(groups).map(keep).collect())
    }

    fn forget(&self, group: &GroupName, user: UserNo) {
        self.members.remove(group);
        self.of_users.remove(&user);
    }

    /// Keeps what was read when changes up to `known` were heeded. Whoever heeds a later one
    /// raises the number first and forgets then; so either finds the other's trace.
    fn keep<K: Eq + Hash + Clone, T: Clone>(
        &self,
        sets: &DashMap<K, T>,
        key: &K,
        set: &T,
        known: i64,
    ) {
        if sets.len() >= REMEMBERED_MAX {
            sets.clear();
        }
        sets.insert(key.clone(), set.clone());
        if self.known.load(Ordering::Acquire) != known {
            sets.remove(key);
        }
    }

    fn looked_ago(&self) -> Option<Duration> {
        let looked = *self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.map(|at| at.elapsed())
    }

    /// Forgets what has changed since the last look, if that is a while ago.
    async fn catch_up(&self) -> Result<(), Error> {
        if self.looked_ago().is_some_and(|ago| ago < LOOK_EVERY) {
            return Ok(());
        }
        let Ok(_looking) = self.looking.try_lock() else {
            // Somebody else looks just now; what is not too old may be answered meanwhile.
            return match self.looked_ago() {
                Some(ago) if ago < STALE_AFTER => Ok(()),
                Some(_) | None => self.look().await,
            };
        };
        self.look().await
    }

    async fn look(&self) -> Result<(), Error> {
        let asked = Instant::now();
        let known = self.known.load(Ordering::Acquire);
        let changes: Vec<(i64, String, i64)> = sqlx::query_as(
            "select change_no, group_name, user_no from membership_change
              where change_no > $1 order by change_no desc limit $2",
        )
        .bind(known)
        .bind(CHANGES_MAX)
        .fetch_all(&self.pool)
        .await?;
        if let Some((newest, ..)) = changes.first() {
            self.known.fetch_max(*newest, Ordering::AcqRel);
        }
        let trusted = self.looked_ago().is_some_and(|ago| ago < CHANGES_TRUSTED_FOR);
        if !trusted || changes.len() as i64 == CHANGES_MAX {
            self.members.clear();
            self.of_users.clear();
        }
        for (_, group, user) in &changes {
            self.forget(&parsed(group)?, UserNo(*user));
        }
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        *looked = (*looked).max(Some(asked));
        Ok(())
    }
}

fn parsed(name: &str) -> Result<GroupName, Error> {
    name.parse().map_err(|_| Error::Undecodable("the name of a group".to_owned()))
}
