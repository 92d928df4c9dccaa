//! A log that is long already when the server starts, put in by SQL in minutes instead of hours:
//! events, the present, and the names, as `append` would have left them.

use std::path::Path;
use std::sync::Arc;

use sqlx::PgConnection;

use crate::Failure;
use crate::scripts::Names;

/// What one transition takes on disk, in bytes: its row, the view's rows, and their indexes.
const TRANSITION_BYTES: u64 = 1_200;
/// What one heartbeat takes.
const HEARTBEAT_BYTES: u64 = 120;
/// What a cluster takes that has nothing in it, with the longest write-ahead log that it keeps.
const CLUSTER_BYTES: u64 = 5 << 30;
/// Of the disk, so much is left to others.
const LEFT_BYTES: u64 = 2 << 30;

/// Users who are in a log before its server starts, each with one live session.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// What their names begin with.
    pub(crate) letter: char,
    /// How many.
    pub(crate) users: usize,
    /// Transitions of each: odd, as the last of them opens the live session.
    pub(crate) transitions_each: usize,
    /// When their leases begin to end, in milliseconds after the filling, evenly over
    /// [`Group::ENDS_WITHIN_MS`]; none: they have just begun.
    pub(crate) ends_in_ms: Option<i64>,
}

/// What a log is filled with.
#[derive(Debug, Clone)]
pub(crate) struct Fill {
    /// Who is there.
    pub(crate) groups: Vec<Group>,
    /// Heartbeats of the first group, after all transitions.
    pub(crate) heartbeats: u64,
    /// The lease of every session, in milliseconds.
    pub(crate) lease_ms: u32,
}

impl Group {
    /// Over how long the leases end.
    pub(crate) const ENDS_WITHIN_MS: i64 = 1_000;

    /// Users who have just logged in, for the first time.
    pub(crate) fn fresh(letter: char, users: usize) -> Self {
        Self { letter, users, transitions_each: 1, ends_in_ms: None }
    }

    /// The names of their sessions.
    pub(crate) fn sessions(&self) -> Arc<Names> {
        let letter = u32::from(self.letter);
        Names::make(self.users, |number| format!("{letter:08x}-0000-7000-8000-{number:012x}"))
    }
}

impl Fill {
    /// Transitions in all.
    pub(crate) fn transitions(&self) -> u64 {
        self.groups.iter().map(|group| (group.users * group.transitions_each) as u64).sum()
    }

    /// What the cluster will take on disk.
    pub(crate) fn bytes(&self) -> u64 {
        CLUSTER_BYTES + self.transitions() * TRANSITION_BYTES + self.heartbeats * HEARTBEAT_BYTES
    }
}

/// Why the disk of `dir` cannot hold so many bytes, if so.
pub(crate) fn lack_of_room(dir: &Path, bytes: u64) -> Result<Option<String>, Failure> {
    let disk = rustix::fs::statvfs(dir)?;
    let free = disk.f_bavail * disk.f_frsize;
    let gibibytes = |bytes: u64| bytes as f64 / (1_u64 << 30) as f64;
    Ok((free < bytes + LEFT_BYTES).then(|| {
        let (needed, free) = (gibibytes(bytes + LEFT_BYTES), gibibytes(free));
        format!("it takes {needed:.0} GiB, and {free:.0} GiB of the disk are free")
    }))
}

/// Fills an empty log. Errors: a lease that would begin only after the filling.
pub(crate) async fn fill(connection: &mut PgConnection, fill: &Fill) -> Result<(), Failure> {
    let latest_ms = fill.groups.iter().filter_map(|group| group.ends_in_ms).max();
    if latest_ms.is_some_and(|ms| ms + Group::ENDS_WITHIN_MS > fill.lease_ms.into()) {
        return Err("a lease that ends later than one that has just begun".into());
    }
    for statement in BEGIN {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    sqlx::query("insert into filling select clock_timestamp(), $1, $2, $3, $4")
        .bind(fill.lease_ms.cast_signed())
        .bind(fill.transitions() as i64)
        .bind(fill.heartbeats as i64)
        .bind(fill.groups.first().map(|group| group.letter.to_string()))
        .execute(&mut *connection)
        .await?;
    for group in &fill.groups {
        stage(connection, group).await?;
    }
    let then = if fill.heartbeats > 0 { HEARTBEATS } else { &[] };
    for statement in TRANSITIONS.iter().chain(then).chain(END) {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn stage(connection: &mut PgConnection, group: &Group) -> Result<(), Failure> {
    let (letter, users) = (group.letter.to_string(), group.users as i64);
    sqlx::query(
        "insert into account (user_id)
         select $1 || lpad(n::text, 7, '0') from generate_series(0, $2 - 1) n order by n",
    )
    .bind(&letter)
    .bind(users)
    .execute(&mut *connection)
    .await?;
    sqlx::query(STAGED)
        .bind(&letter)
        .bind(users)
        .bind(group.transitions_each as i64)
        .bind(group.ends_in_ms)
        .bind(Group::ENDS_WITHIN_MS)
        .bind(format!("{:08x}", u32::from(group.letter)))
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// `at` is the instant up to which the log is to reach.
const BEGIN: &[&str] = &[
    "create temp table filling (at timestamptz, lease_ms integer, transitions bigint,
                                heartbeats bigint, letter text)",
    "create temp table staged (user_no bigint, sequence bigint, at timestamptz, session_id uuid,
                               position bigint, is_last boolean)",
    "create temp table beating (number bigint, user_no bigint, session_id uuid)",
];

/// Transitions to be, a second apart; the last one opens the session that is live. $1 letter,
/// $2 users, $3 transitions each, $4 when leases begin to end and $5 over how long, in
/// milliseconds, $6 the letter's code.
const STAGED: &str = "
    insert into staged (user_no, sequence, at, session_id, is_last)
    select a.user_no, s.sequence, f.at + (last.ms - ($3 - s.sequence) * 1000)
                                         * interval '1 millisecond',
           -- A login and the logout after it are of one session.
           ($6 || '-0000-7000-8' || lpad(to_hex(($3 - s.sequence + 1) / 2), 3, '0') || '-'
               || lpad(to_hex(n), 12, '0'))::uuid, s.sequence = $3
      from filling f
     cross join generate_series(0, $2 - 1) n
      join account a on a.user_id = $1 || lpad(n::text, 7, '0')
     cross join generate_series(1, $3) s (sequence)
     cross join lateral (select case when $4 is null then -1000.0 - 1000.0 * n / $2
                                     else $4 - f.lease_ms + 1.0 * $5 * n / $2 end as ms) last";

const TRANSITIONS: &[&str] = &[
    "select make_leaf(parent, n * 16777216, (n + 1) * 16777216)
       from filling f, unnest(array['event_t', 'event_h']) parent,
            generate_series(0, (f.transitions + f.heartbeats) / 16777216 + 1) n",
    // What is written follows the time at which it happened.
    "update staged s set position = n.position
       from (select user_no, sequence, row_number() over (order by at, user_no) as position
               from staged) n
      where s.user_no = n.user_no and s.sequence = n.sequence",
    "insert into event_t (position, class, type, user_no, sequence, session_id, occurred_at,
                          recorded_at, from_status, to_status, reason, actor_no, data)
     select s.position, 'T'::\"char\", 'session_opened'::event_type, s.user_no, s.sequence,
            s.session_id, s.at, s.at, 'offline'::presence_status, 'online'::presence_status,
            null::end_reason, s.user_no,
            jsonb_build_object('kind', 'other', 'lease_ms', f.lease_ms, 'idle_ms', 0,
                               'active', true)
       from staged s, filling f where s.sequence % 2 = 1
      union all
     select s.position, 'T', 'session_closed', s.user_no, s.sequence, s.session_id, s.at, s.at,
            'online', 'offline', 'user_request', s.user_no, null
       from staged s where s.sequence % 2 = 0
      order by position",
    "insert into ended_session (session_id, user_no, ended_at, position, reason)
     select session_id, user_no, at, position, 'user_request' from staged where sequence % 2 = 0",
    "insert into current_status (user_no, status, since, shown_since, sequence, position,
         changed_at, own_since, last_seen, last_activity, live_sessions, invisible, state_version,
         state)
     select s.user_no, 'online', s.at, s.at, s.sequence, s.position, s.at, first.at, before.at,
            before.at, 1, false, 1, '{}'
       from staged s
       join staged first on first.user_no = s.user_no and first.sequence = 1
       -- The latest sign of life of sessions that are over.
       left join staged before on before.user_no = s.user_no and before.sequence = s.sequence - 2
      where s.is_last",
    "insert into live_session (session_id, user_no, opened_at, last_seen, check_at,
         opened_position, lease_ms, idle_ms, kind, active)
     select s.session_id, s.user_no, s.at, s.at, s.at + f.lease_ms * interval '1 millisecond',
            s.position, f.lease_ms, 0, 'other', true
       from staged s, filling f where s.is_last",
];

/// One session of the first group after the other, over and over, within the last second.
const HEARTBEATS: &[&str] = &[
    "insert into beating
     select row_number() over (order by user_no) - 1, s.user_no, s.session_id
       from staged s join account a using (user_no), filling f
      where s.is_last and left(a.user_id, 1) = f.letter",
    "insert into event_h (position, class, type, user_no, session_id, occurred_at, recorded_at,
                          idle_ms)
     select f.transitions + i + 1, 'H', 'heartbeat', b.user_no, b.session_id,
            f.at - interval '1 second' * (1.0 - (i + 1.0) / f.heartbeats),
            f.at - interval '1 second' * (1.0 - (i + 1.0) / f.heartbeats), 0
       from filling f
      cross join (select count(*) as users from beating) n
      cross join generate_series(0, f.heartbeats - 1) i
       join beating b on b.number = i % n.users
      order by i",
    // By the latest of each.
    "update live_session l
        set last_seen = f.at - interval '1 second' * (1.0 - (i + 1.0) / f.heartbeats)
       from filling f
      cross join (select count(*) as users from beating) n
       join beating b on b.number < f.heartbeats
      cross join lateral (select f.heartbeats - 1
                                 - (f.heartbeats - 1 - b.number) % n.users as i) latest
      where l.session_id = b.session_id",
];

const END: &[&str] = &[
    "select setval('log_pos', transitions + heartbeats) from filling",
    "insert into batch (batch_id, recorded_at, taken_at, first_position, head, head_found, verdicts)
     select gen_random_uuid(), at, at, 1, transitions + heartbeats, 0, '' from filling",
    "drop table staged, filling, beating",
    "vacuum analyze",
    "checkpoint",
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ::tests::{Options, World};

    use super::*;

    #[tokio::test]
    async fn what_is_filled_in_is_as_the_server_would_have_left_it() {
        let mut world = World::with(Options { nodes: 0, ..Options::default() }).await;
        let few = Group { letter: 'u', users: 5, transitions_each: 7, ends_in_ms: None };
        let due = Group { ends_in_ms: Some(60_000), ..Group::fresh('x', 4) };
        let filled = Fill { groups: vec![few, due], heartbeats: 13, lease_ms: 120_000 };
        let mut connection = world.pool.acquire().await.unwrap();
        fill(&mut connection, &filled).await.unwrap();
        drop(connection);
        world.add_node().await;
        // It looks at everything that holds of a log.
        world.finish().await;
    }

    #[test]
    fn a_disk_that_is_too_small_is_told_before_it_is_full() {
        let here = std::env::temp_dir();
        assert!(lack_of_room(&here, 1 << 60).unwrap().is_some_and(|why| why.contains("GiB")));
    }

    #[test]
    fn sessions_have_the_names_that_are_filled_in() {
        let sessions = Group::fresh('u', 20).sessions();
        assert_eq!(sessions.get(17), b"00000075-0000-7000-8000-000000000011");
    }
}
