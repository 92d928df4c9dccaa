-- For those who look at people in numbers: psql, Grafana, pandas. A stable interface: columns are
-- added, never renamed or taken away. Everything here is as others were shown it: an invisible
-- person is offline, in every count. Read-only, as `rollcall_analyst`:
--
--   rollcall db-url --role analyst      prints the URL to connect with
--
-- Nothing depends on the session's time zone: days are UTC days unless a zone is named.
--
-- A view reads its tables with its owner's rights, but calls functions with the caller's: hence
-- `security definer` below, so that the analyst needs no right but on this schema.
create schema if not exists analytics;

-- Now, as a reader may take it: never far past the newest batch, for what came after it may have
-- been an outage, in which no lease runs. The same as `LogClock` in projections/src/clock.rs.
create function reader_now() returns timestamptz language sql stable security definer
set search_path from current as $$
    select case when b.recorded_at is null then log_clock()
                else greatest(b.recorded_at,
                              least(log_clock(), b.recorded_at + interval '5 seconds')) end
      from (select (select recorded_at from batch order by batch_no desc limit 1)) b (recorded_at)
$$;

-- `lease_end` for those who may not read the silences themselves.
create function shown_lease_end(start timestamptz, length_ms integer) returns timestamptz
language sql stable security definer set search_path from current as
    $$ select lease_end(start, length_ms) $$;

-- Microseconds that two intervals share.
create function shared_us(one_from timestamptz, one_to timestamptz, other_from timestamptz,
                          other_to timestamptz)
returns bigint language sql immutable as $$
    select greatest(0, extract(epoch from least(one_to, other_to)
                                        - greatest(one_from, other_from)) * 1000000)::bigint
$$;

-- The status by the rules of domain/src/rules.rs and domain/src/shown.rs, as of now: a lease, a
-- claim or an activity that is over no longer counts, however late its end is recorded.
create view analytics.user_status as
select a.user_id,
       shown.status <> 'offline' as is_online,
       shown.status::text as online_status,
       case when s.state ? 'veil' then (s.state #>> '{veil,last_seen}')::timestamptz
            else greatest(s.last_seen, session.last_seen) end as last_seen
  from (select reader_now() as at,
               coalesce((select max(to_at) from silence), '-infinity') as quiet offset 0) clock
 cross join current_status s
  join account a on a.user_no = s.user_no
 cross join lateral (
    select max(l.last_seen) as last_seen,
           bool_or(l.over_at > clock.at) is true as live,
           bool_or(l.over_at > clock.at and l.active
                   and (l.idle_at is null or l.idle_at > clock.at)) is true as active
      from (select v.last_seen, v.active,
                   -- The function is needed only where a silence came in between.
                   case when v.last_seen >= clock.quiet
                        then v.last_seen + v.lease_ms * interval '1 millisecond'
                        else shown_lease_end(v.last_seen, v.lease_ms) end as over_at,
                   case when v.last_seen >= clock.quiet
                        then v.last_seen + v.away_after_ms * interval '1 millisecond'
                        else shown_lease_end(v.last_seen, v.away_after_ms) end as idle_at
              from live_session v where v.user_no = s.user_no) l) session
 cross join lateral (
    select case when s.invisible or not session.live then 'offline'
                else coalesce(
                    (select (c ->> 'status')::presence_status
                       from jsonb_array_elements(s.state -> 'claims') c
                      where coalesce((c ->> 'expires_at')::timestamptz > clock.at, true)
                        and (session.active or (c ->> 'while_active')::boolean is not true)
                      order by case c ->> 'source' when 'admin' then 0 when 'manual' then 1
                                                   else 2 end,
                               array_position(array['dnd', 'busy', 'away', 'online'],
                                              c ->> 'status')
                      limit 1),
                    case when session.active then 'online'::presence_status else 'away' end)
           end as status) shown;

comment on view analytics.user_status is 'Who is here now. A user a row, as of the query: a lease '
    'that is over counts as offline, whether or not its end is recorded yet.';
comment on column analytics.user_status.user_id is 'The outside name.';
comment on column analytics.user_status.is_online is 'Whether the status is not offline.';
comment on column analytics.user_status.online_status is 'online, away, busy, dnd or offline.';
comment on column analytics.user_status.last_seen is
    'Latest login or heartbeat of any session; frozen while the user is invisible.';

-- The few who were ever invisible are folded from the log, as others were shown them; of all
-- others, what was shown is what was. Not what began a span: an event that others were not shown
-- would give the invisible away.
create function veiled_spans() returns table (user_no bigint, from_at timestamptz,
    to_at timestamptz, status presence_status)
language sql stable security definer rows 1000 set search_path from current as $$
    select f.user_no, f.from_at, f.to_at, f.status
      from fold_spans(
            array(select distinct e.user_no from event e
                   where e.class = 'T' and e.type = 'visibility_changed'),
            (select v.position from view_version v
              where v.view = 'status_span' and v.state = 'live'), true) f
$$;

create view shown_span as
select s.user_no, s.from_at, s.to_at, s.status, s.during
  from status_span s
 where not exists (select from event e where e.class = 'T' and e.type = 'visibility_changed'
                      and e.user_no = s.user_no)
union all
select v.user_no, v.from_at, v.to_at, v.status, tstzrange(v.from_at, v.to_at)
  from veiled_spans() v;

create view analytics.status_span as
select a.user_id, s.status::text as status, s.from_at, s.to_at
  from shown_span s join account a on a.user_no = s.user_no;

comment on view analytics.status_span is 'Everybody''s history in stretches of one status each, '
    'from a user''s first event to now, without hole or overlap.';
comment on column analytics.status_span.user_id is 'The outside name.';
comment on column analytics.status_span.status is 'online, away, busy, dnd or offline.';
comment on column analytics.status_span.from_at is 'When it began.';
comment on column analytics.status_span.to_at is 'When it ended; null: it lasts.';

create view analytics.session as
select a.user_id, s.session_id, s.kind::text as device_kind, s.opened_at, s.ended_at,
       s.reason::text as reason,
       (extract(epoch from s.ended_at - s.opened_at) * 1000)::bigint as length_ms,
       s.imported
  from session_span s join account a on a.user_no = s.user_no
 where not s.invisible;

comment on view analytics.session is 'Sessions from login to end, a row each. One in which the '
    'user was invisible for some time is not among them.';
comment on column analytics.session.user_id is 'The outside name.';
comment on column analytics.session.session_id is 'The session''s name, a UUID.';
comment on column analytics.session.device_kind is 'web, mobile, desktop, service or other.';
comment on column analytics.session.opened_at is 'The login.';
comment on column analytics.session.ended_at is 'The end; null: not ended yet.';
comment on column analytics.session.reason is 'Why it ended: user_request, lost_carrier, '
    'idle_timeout, session_timeout or admin_reset; null: not ended yet.';
comment on column analytics.session.length_ms is
    'Milliseconds from login to end; null: not ended yet.';
comment on column analytics.session.imported is 'Taken over from another system.';

create view analytics.occupancy as
select o.minute + interval '1 minute' as at,
       (sum(o.online) over earlier)::bigint as online,
       (sum(o.away) over earlier)::bigint as away,
       (sum(o.busy) over earlier)::bigint as busy,
       (sum(o.dnd) over earlier)::bigint as dnd,
       (sum(o.offline) over earlier)::bigint as offline
  from occupancy o window earlier as (order by o.minute);

comment on view analytics.occupancy is 'How many people were in each status, at the end of each '
    'minute in which that changed; between two rows the earlier one holds. For a row each '
    'bucket: select * from analytics.occupancy(from, to, bucket).';
comment on column analytics.occupancy.at is 'The instant: a full minute.';
comment on column analytics.occupancy.online is 'People online then.';
comment on column analytics.occupancy.away is 'People away then.';
comment on column analytics.occupancy.busy is 'People busy then.';
comment on column analytics.occupancy.dnd is 'People who did not want to be disturbed then.';
comment on column analytics.occupancy.offline is 'People known by then, and offline.';

-- `timezone`: a series of whole days must not stumble over the session's summer time.
create function analytics.occupancy(from_at timestamptz, to_at timestamptz, bucket interval)
returns table (at timestamptz, online bigint, away bigint, busy bigint, dnd bigint, offline bigint)
language sql stable security definer set search_path from current set timezone = 'UTC' as $$
    with told as (
        select g.at, true as mark, 0 as online, 0 as away, 0 as busy, 0 as dnd, 0 as offline
          from generate_series(from_at, least(to_at - interval '1 microsecond', reader_now()),
                               bucket) g (at)
        union all
        -- What changed within a minute has changed by its end.
        select o.minute + interval '1 minute', false, o.online, o.away, o.busy, o.dnd, o.offline
          from occupancy o
         where o.minute > from_at - interval '1 minute' and o.minute < to_at
        union all
        select from_at, false, sum(o.online), sum(o.away), sum(o.busy), sum(o.dnd), sum(o.offline)
          from occupancy o where o.minute <= from_at - interval '1 minute'
    ), counted as (
        select t.at, t.mark, sum(t.online) over so_far as online, sum(t.away) over so_far as away,
               sum(t.busy) over so_far as busy, sum(t.dnd) over so_far as dnd,
               sum(t.offline) over so_far as offline
          from told t window so_far as (order by t.at, t.mark rows unbounded preceding)
    )
    select c.at, coalesce(c.online, 0)::bigint, coalesce(c.away, 0)::bigint,
           coalesce(c.busy, 0)::bigint, coalesce(c.dnd, 0)::bigint,
           coalesce(c.offline, 0)::bigint
      from counted c where c.mark order by c.at
$$;
comment on function analytics.occupancy(timestamptz, timestamptz, interval) is
    'How many people were in each status at the instants from, from + bucket, ... before to, and '
    'not after now. To the minute: changes count from the end of the minute in which they fall.';

create view analytics.status_daily as
select a.user_id, u.day, u.online_us / 1000 as online_ms, u.away_us / 1000 as away_ms,
       u.busy_us / 1000 as busy_ms, u.dnd_us / 1000 as dnd_ms,
       u.known_us / 1000 - u.online_us / 1000 - u.away_us / 1000 - u.busy_us / 1000
           - u.dnd_us / 1000 as offline_ms
  from (select d.midnight::date as day, o.user_no, d.known_us,
               coalesce(s.online_us, 0) + case o.status when 'online' then d.open_us else 0 end
                   as online_us,
               coalesce(s.away_us, 0) + case o.status when 'away' then d.open_us else 0 end
                   as away_us,
               coalesce(s.busy_us, 0) + case o.status when 'busy' then d.open_us else 0 end
                   as busy_us,
               coalesce(s.dnd_us, 0) + case o.status when 'dnd' then d.open_us else 0 end as dnd_us
          from (select reader_now() as at offset 0) clock
         -- The calendar first: who asks for one day should not pay for all.
         cross join lateral generate_series(
                (select date_trunc('day', min(f.first_at) at time zone 'UTC')
                   from status_daily_open f),
                clock.at at time zone 'UTC', interval '1 day') g (midnight)
          join status_daily_open o on o.first_at at time zone 'UTC' < g.midnight + interval '1 day'
         cross join lateral (
            select g.midnight,
                   shared_us(o.first_at, clock.at, g.midnight at time zone 'UTC',
                             (g.midnight + interval '1 day') at time zone 'UTC') as known_us,
                   shared_us(o.at, clock.at, g.midnight at time zone 'UTC',
                             (g.midnight + interval '1 day') at time zone 'UTC') as open_us) d
          left join status_daily s on s.user_no = o.user_no and s.day = g.midnight::date) u
  join account a on a.user_no = u.user_no;

comment on view analytics.status_daily is 'How long everybody was in each status on each UTC day '
    'from their first event to now. For other time zones: select * from '
    'analytics.status_daily(from, to, zone).';
comment on column analytics.status_daily.user_id is 'The outside name.';
comment on column analytics.status_daily.day is 'The UTC day.';
comment on column analytics.status_daily.online_ms is 'Milliseconds online.';
comment on column analytics.status_daily.away_ms is 'Milliseconds away.';
comment on column analytics.status_daily.busy_ms is 'Milliseconds busy.';
comment on column analytics.status_daily.dnd_ms is 'Milliseconds in do not disturb.';
comment on column analytics.status_daily.offline_ms is
    'Milliseconds offline, from the user''s first event on; the five add up to the day.';

-- A day is from one local midnight to the next: 23 or 25 hours where the clocks change. Of one
-- user, or of everybody; planned anew for each call, as these two want different plans.
create function daily_shares(from_day date, to_day date, zone text, who bigint)
returns table (user_id text, day date, online_ms bigint, away_ms bigint, busy_ms bigint,
               dnd_ms bigint, offline_ms bigint)
language plpgsql stable security definer
set search_path from current set timezone = 'UTC' set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
    clock timestamptz := reader_now();
    window_from timestamptz := from_day::timestamp at time zone zone;
    window_to timestamptz := least(clock, to_day::timestamp at time zone zone);
begin
    if window_from >= window_to then
        return;
    end if;
    return query
    with calendar as materialized (
        select g.midnight::date as day, g.midnight at time zone zone as from_at,
               least(clock, (g.midnight + interval '1 day') at time zone zone) as to_at
          from generate_series(from_day::timestamp, to_day::timestamp - interval '1 day',
                               interval '1 day') g (midnight)
         where g.midnight at time zone zone < clock
    ), share as (
        select s.user_no, c.day, s.status,
               trunc(sum(shared_us(s.from_at, coalesce(s.to_at, clock), c.from_at, c.to_at))
                     / 1000) as ms
          from shown_span s
          join calendar c on s.from_at < c.to_at and coalesce(s.to_at, 'infinity') > c.from_at
         where (who is null or s.user_no = who) and s.during && tstzrange(window_from, window_to)
         group by s.user_no, c.day, s.status
    )
    select a.user_id, h.day,
           coalesce(sum(h.ms) filter (where h.status = 'online'), 0)::bigint,
           coalesce(sum(h.ms) filter (where h.status = 'away'), 0)::bigint,
           coalesce(sum(h.ms) filter (where h.status = 'busy'), 0)::bigint,
           coalesce(sum(h.ms) filter (where h.status = 'dnd'), 0)::bigint,
           coalesce(sum(h.ms) filter (where h.status = 'offline'), 0)::bigint
      from share h join account a on a.user_no = h.user_no
     group by a.user_id, h.day order by h.day, a.user_id;
end $$;

create function analytics.status_daily(from_day date, to_day date, zone text default 'UTC')
returns table (user_id text, day date, online_ms bigint, away_ms bigint, busy_ms bigint,
               dnd_ms bigint, offline_ms bigint)
language sql stable security definer set search_path from current as
    $$ select * from daily_shares(from_day, to_day, zone, null) $$;
comment on function analytics.status_daily(date, date, text) is
    'How long everybody was in each status on each local day of that time zone (Europe/Berlin) '
    'from from_day to before to_day: milliseconds; 23 or 25 hours where the clocks change.';

create function analytics.status_daily(from_day date, to_day date, zone text, who text)
returns table (user_id text, day date, online_ms bigint, away_ms bigint, busy_ms bigint,
               dnd_ms bigint, offline_ms bigint)
language sql stable security definer set search_path from current as $$
    select s.* from account a, daily_shares(from_day, to_day, zone, a.user_no) s
     where a.user_id = who
$$;
comment on function analytics.status_daily(date, date, text, text) is
    'The same of one user.';

-- How far each of these tables has come.
create view analytics.freshness as
select v.view, v.position, v.applied_to, reader_now() - v.applied_to as behind
  from view_version v where v.state = 'live';

comment on view analytics.freshness is 'How far each of the tables that follow the log has come.';
comment on column analytics.freshness.view is
    'status_span, session_span (shown as session), occupancy or status_daily.';
comment on column analytics.freshness.position is
    'All events of the log at or below this position are in it.';
comment on column analytics.freshness.applied_to is 'All that was recorded by then is in it.';
comment on column analytics.freshness.behind is 'How far that is from now.';

-- The analyst reads this schema and nothing else; before, also the raw log, in which invisible
-- people can be seen.
revoke select on event, current_status, live_session, ended_session, silence, account, word,
    batch, relay from rollcall_analyst;
do $$
begin
    execute format('revoke usage on schema %I from rollcall_analyst', current_schema());
end $$;
grant usage on schema analytics to rollcall_analyst, rollcall_auditor, rollcall_api;
grant select on all tables in schema analytics
    to rollcall_analyst, rollcall_auditor, rollcall_api;
grant select on shown_span to rollcall_api, rollcall_auditor;
revoke all on function daily_shares, veiled_spans from public;
grant execute on function veiled_spans to rollcall_analyst, rollcall_auditor, rollcall_api;
