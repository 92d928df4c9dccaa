-- A build folds everybody one after the other, as at the head with which it begins, before it
-- follows the log page by page: a user's rows are written once, together, in the order of the key.
-- `filled_to`: nothing of users numbered above it is in yet; null: everybody is in.
-- A node of an earlier release does not know of it: whatever it does, nobody is shown such a build.
alter table view_version add column filled_to bigint,
    add constraint view_version_filled check (state <> 'live' or filled_to is null);

-- A user's span as a box that no other user's meets: one axis numbers users, the other counts
-- microseconds, which a float holds exactly until 2285. It ends one microsecond before the next
-- span, as borders of boxes belong to them. PostgreSQL compares boxes several times faster than
-- ranges beside numbers, and the same constraint costs that much less with every span.
create function span_box(who bigint, from_at timestamptz, to_at timestamptz) returns box
language sql immutable parallel safe return box(
    point(who, (extract(epoch from from_at - timestamptz '2000-01-01Z') * 1000000)::float8),
    point(who + 0.5, coalesce(
        (extract(epoch from to_at - timestamptz '2000-01-01Z') * 1000000)::float8 - 1, 1e18)));

-- Makes the tables of one version of a view.
create or replace function make_view(view text, version integer) returns void language plpgsql
security definer set search_path from current as $$
declare
    name text := format('%s_%s', view, version);
begin
    if view = 'status_span' then
        -- An interval of one user's history with one status, and the events at both ends. Open
        -- (`to_at` null): still so. From the first event to now there is no hole, and by the
        -- exclusion constraint no overlap: two statuses at one time are impossible.
        execute format('create table %I (
            user_no       bigint not null,
            from_at       timestamptz not null,
            to_at         timestamptz,
            status        presence_status not null,
            from_position bigint not null,
            from_type     event_type not null,
            from_reason   end_reason,
            to_position   bigint,
            to_type       event_type,
            to_reason     end_reason,
            during        tstzrange not null
                          generated always as (tstzrange(from_at, to_at)) stored,
            primary key (user_no, from_at) include (to_at, status),
            check (from_at < to_at),
            constraint %I exclude using gist (span_box(user_no, from_at, to_at) with &&)
        )', name, name || '_no_overlap');
    elsif view = 'session_span' then
        -- Each session from open to end. `invisible`: the user was so at some time meanwhile.
        execute format('create table %I (
            session_id      uuid not null,
            user_no         bigint not null,
            opened_at       timestamptz not null,
            ended_at        timestamptz,
            opened_position bigint primary key,
            ended_position  bigint,
            kind            device_kind not null,
            reason          end_reason,
            imported        boolean not null,
            invisible       boolean not null
        )', name);
        execute format('create index on %I (session_id) where ended_at is null', name);
        execute format('create index on %I (user_no, opened_at)', name);
        -- Rows come in the order of time: a summary of blocks finds a window.
        execute format('create index on %I using brin (opened_at, ended_at)', name);
    elsif view = 'occupancy' then
        -- By how much the number of people in each status changed within a minute, as others were
        -- shown it. Sums of these are numbers of people: late events only add.
        execute format('create table %I (
            minute  timestamptz primary key,
            online  bigint not null,
            away    bigint not null,
            busy    bigint not null,
            dnd     bigint not null,
            offline bigint not null
        ) with (fillfactor = 80)', name);
    elsif view = 'status_daily' then
        -- Milliseconds in each status but offline, a user and UTC day, as others were shown it.
        -- A day without a row: offline. What has not ended yet begins at `status_daily_open`.
        execute format('create table %I (
            user_no   bigint not null,
            day       date not null,
            online_us bigint not null,
            away_us   bigint not null,
            busy_us   bigint not null,
            dnd_us    bigint not null,
            primary key (user_no, day)
        ) with (fillfactor = 80)', name);
        execute format('create index on %I (day)', name);
        execute format('create table %I (
            user_no  bigint primary key,
            first_at timestamptz not null,
            at       timestamptz not null,
            status   presence_status not null
        ) with (fillfactor = 70)', 'status_daily_open_' || version);
        execute format('grant select, insert, update, delete on %I to rollcall_api',
            'status_daily_open_' || version);
    else
        raise exception 'no such view: %', view;
    end if;
    execute format('grant select, insert, update, delete on %I to rollcall_api', name);
end $$;

-- A version that has spans already keeps its guard: it says the same, and the next rebuild makes
-- the new one.
do $$
declare
    name text;
    filled boolean;
begin
    for name in select format('status_span_%s', v.version) from view_version v
                 where v.view = 'status_span' loop
        execute format('select exists (select from %I)', name) into filled;
        if not filled then
            execute format('alter table %I drop constraint %I, add constraint %I
                exclude using gist (span_box(user_no, from_at, to_at) with &&)',
                name, name || '_no_overlap', name || '_no_overlap');
        end if;
    end loop;
end $$;

-- The same columns as before. Each half is joined with the names by itself: so whoever asks for one
-- user reads that user's spans, not everybody's.
create or replace view analytics.status_span as
select a.user_id, s.status::text as status, s.from_at, s.to_at
  from status_span s join account a on a.user_no = s.user_no
 where not exists (select from event e where e.class = 'T' and e.type = 'visibility_changed'
                      and e.user_no = s.user_no)
union all
select a.user_id, v.status::text, v.from_at, v.to_at
  from veiled_spans() v join account a on a.user_no = v.user_no;

-- The sums of analytics.status_daily by day, without a row for each user and day: what has ended is
-- in the table, of what lasts only those who are not offline are looked at one by one, and how long
-- people were known follows from how many they were. To the millisecond the sum of what the view
-- says of each.
create function analytics.status_daily_totals(from_day date, to_day date)
returns table (day date, users bigint, online_ms bigint, away_ms bigint, busy_ms bigint,
               dnd_ms bigint, offline_ms bigint)
language sql stable security definer set search_path from current set timezone = 'UTC'
-- To compile it takes longer than to run it.
set jit = off as $$
    with calendar as materialized (
        select g.midnight::date as day, g.midnight as from_at,
               least(clock.at, g.midnight + interval '1 day') as to_at
          from (select reader_now() as at offset 0) clock
         cross join lateral generate_series(
                greatest(from_day, (select min(f.first_at)::date from status_daily_open f))
                    ::timestamptz,
                least(to_day - 1, clock.at::date)::timestamptz, interval '1 day') g (midnight)
    ), met as materialized (
        select o.first_at::date as day, count(*) as people,
               sum(shared_us(o.first_at, c.to_at, c.from_at, c.to_at) / 1000) as ms
          from status_daily_open o left join calendar c on c.day = o.first_at::date group by 1
    ), known as (
        select c.day, sum(m.people) as users,
               sum(case when m.day = c.day then m.ms
                        else m.people * (shared_us(c.from_at, c.to_at, c.from_at, c.to_at) / 1000)
                   end) as ms
          from calendar c join met m on m.day <= c.day group by c.day
    ), ended as (
        select s.day, sum(s.online_us / 1000) as online_ms, sum(s.away_us / 1000) as away_ms,
               sum(s.busy_us / 1000) as busy_ms, sum(s.dnd_us / 1000) as dnd_ms
          from status_daily s where s.day >= from_day and s.day < to_day group by s.day
    ), lasting as (
        select c.day, o.status, sum((p.us + shared_us(o.at, c.to_at, c.from_at, c.to_at)) / 1000
                                    - p.us / 1000) as ms
          from status_daily_open o
          join calendar c on c.to_at > o.at
          -- By its key: most are of one day, and the table is of all.
          left join lateral (select * from status_daily d
                              where d.user_no = o.user_no and d.day = c.day offset 0) s on true
         cross join lateral (
            select coalesce(case o.status when 'online' then s.online_us when 'away' then s.away_us
                                          when 'busy' then s.busy_us else s.dnd_us end, 0) as us) p
         where o.status <> 'offline' group by c.day, o.status
    ), summed as (
        select k.day, k.users, k.ms as known_ms,
               coalesce(max(e.online_ms), 0)
                   + coalesce(sum(l.ms) filter (where l.status = 'online'), 0) as online_ms,
               coalesce(max(e.away_ms), 0)
                   + coalesce(sum(l.ms) filter (where l.status = 'away'), 0) as away_ms,
               coalesce(max(e.busy_ms), 0)
                   + coalesce(sum(l.ms) filter (where l.status = 'busy'), 0) as busy_ms,
               coalesce(max(e.dnd_ms), 0)
                   + coalesce(sum(l.ms) filter (where l.status = 'dnd'), 0) as dnd_ms
          from known k left join ended e on e.day = k.day left join lasting l on l.day = k.day
         group by k.day, k.users, k.ms
    )
    select s.day, s.users::bigint, s.online_ms::bigint, s.away_ms::bigint, s.busy_ms::bigint,
           s.dnd_ms::bigint,
           (s.known_ms - s.online_ms - s.away_ms - s.busy_ms - s.dnd_ms)::bigint
      from summed s order by s.day
$$;
comment on function analytics.status_daily_totals(date, date) is
    'How long all people together were in each status on each UTC day from from_day to before '
    'to_day, and how many they are: the sums of analytics.status_daily, many times as fast.';

-- The same by the local days of a time zone: every span is read once and dealt out over them.
-- Rounded when all is summed up.
create function analytics.status_daily_totals(from_day date, to_day date, zone text)
returns table (day date, users bigint, online_ms bigint, away_ms bigint, busy_ms bigint,
               dnd_ms bigint, offline_ms bigint)
language sql stable security definer set search_path from current set timezone = 'UTC'
set jit = off as $$
    with clock as materialized (
        select reader_now() as at, (select min(f.first_at) from status_daily_open f) as first_at
    ), calendar as materialized (
        select row_number() over (order by g.midnight) as n, g.midnight::date as day,
               g.midnight at time zone zone as from_at,
               least(clock.at, (g.midnight + interval '1 day') at time zone zone) as to_at
          from clock
         cross join lateral generate_series(
                greatest(from_day, (clock.first_at at time zone zone)::date)::timestamp,
                least(to_day - 1, (clock.at at time zone zone)::date)::timestamp,
                interval '1 day') g (midnight)
    ), edges as materialized (
        select array_agg(c.from_at order by c.n) || max(c.to_at) as at, min(c.from_at) as first,
               max(c.to_at) as last, count(*)::integer as days
          from calendar c
    ), known as (
        select c.n, count(*) as users
          from calendar c join status_daily_open o on o.first_at < c.to_at group by c.n
    ), dealt as (
        select p.n, s.status,
               sum(date_part('epoch', least(s.to_at, e.last, e.at[p.n + 1])
                                      - greatest(s.from_at, e.at[p.n])) * 1000000)::bigint / 1000
                   as ms
          from edges e
         cross join shown_span s
         cross join lateral generate_series(
                greatest(1, width_bucket(s.from_at, e.at)),
                least(e.days, width_bucket(least(s.to_at, e.last) - interval '1 microsecond',
                                           e.at))) p (n)
         where s.from_at < e.last and (s.to_at is null or s.to_at > e.first)
         group by p.n, s.status
    )
    select c.day, k.users, coalesce(sum(d.ms) filter (where d.status = 'online'), 0)::bigint,
           coalesce(sum(d.ms) filter (where d.status = 'away'), 0)::bigint,
           coalesce(sum(d.ms) filter (where d.status = 'busy'), 0)::bigint,
           coalesce(sum(d.ms) filter (where d.status = 'dnd'), 0)::bigint,
           coalesce(sum(d.ms) filter (where d.status = 'offline'), 0)::bigint
      from calendar c join known k on k.n = c.n left join dealt d on d.n = c.n
     group by c.day, k.users order by c.day
$$;
comment on function analytics.status_daily_totals(date, date, text) is
    'The same on the local days of that time zone (Europe/Berlin).';

-- Most transitions are of these types. Whoever asks for another finds it without reading them all.
create index event_t_rare on event_t (position)
    where type not in ('session_opened', 'session_closed', 'session_expired', 'activity_changed');

-- The same, in floating point: exact below 2^53 microseconds, which are 285 years, and three times
-- as fast.
create or replace function shared_us(one_from timestamptz, one_to timestamptz,
                                     other_from timestamptz, other_to timestamptz)
returns bigint language sql immutable as $$
    select greatest(0, date_part('epoch', least(one_to, other_to)
                                          - greatest(one_from, other_from)) * 1000000)::bigint
$$;

-- Most sessions have no `away_after_ms`: no call for nothing.
alter function shown_lease_end(timestamptz, integer) strict;
