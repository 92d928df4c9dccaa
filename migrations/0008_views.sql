-- What follows the log: tables that can be thrown away and made again from it, while it grows.
--
-- A view is a table (or two) a version: `status_span_1`, `status_span_2`, ... `view_version` says
-- which one is live and how far each has come; a stable name (`status_span`) shows the live one.
-- `projections/src/follow/` applies pages of the log, each in one transaction with its checkpoint.

-- Equality of numbers inside a GiST index: for the constraint that forbids overlapping spans.
create extension if not exists btree_gist;

create table view_version (
    view       text not null,
    version    integer not null,
    state      text not null,
    position   bigint not null default 0, -- the checkpoint: all events at or below it are applied
    applied_to timestamptz,               -- recorded_at of the newest batch known at that time
    moved_at   timestamptz not null default clock_timestamp(), -- when it was last looked after
    made_at    timestamptz not null default clock_timestamp(),
    primary key (view, version),
    -- building: filled beside the live one, unless stopped meanwhile. kept: what was live before,
    -- until the change is confirmed.
    constraint view_version_state check (state in ('building', 'stopped', 'live', 'kept'))
);
create unique index view_version_live on view_version (view) where state = 'live';
create unique index view_version_building on view_version (view)
    where state in ('building', 'stopped');

-- Events that a view could not take. Later events of that user wait behind the first of them, in
-- that view alone; everybody else goes on. `rollcall doctor --repair` folds the user anew.
create table dead_letter (
    view     text not null,
    version  integer not null,
    position bigint not null,
    user_no  bigint not null,
    sqlstate text not null,
    error    text not null,
    found_at timestamptz not null default clock_timestamp(),
    primary key (view, version, position),
    foreign key (view, version) references view_version on delete cascade
);

-- Who was ever invisible, and from which event on: few, and asked for with every page.
create index event_t_visibility on event_t (user_no, position) where type = 'visibility_changed';

-- Whether others were shown `offline` instead of the truth, right after that position.
create function invisible_at(who bigint, upto bigint) returns boolean language sql stable
set search_path from current as $$
    select coalesce((select v.data ->> 'invisible' = 'true' from event v
                      where v.class = 'T' and v.type = 'visibility_changed'
                        and v.user_no = who and v.position <= upto
                      order by v.position desc limit 1), false)
$$;

-- The last position that was written down at or before an instant: what was known by then is what
-- stands at or below it. `recorded_at` follows position, so halving finds it without an index.
create function position_at(known_at timestamptz) returns bigint language plpgsql stable
set search_path from current as $$
declare
    low bigint := 0;
    high bigint := (select coalesce(max(position), 0) from event where class = 'T') + 1;
    middle bigint;
    found_position bigint;
    found_at timestamptz;
begin
    -- Always: what stands at `low` was known by then, what stands at `high` was not.
    while high - low > 1 loop
        middle := (low + high) / 2;
        select e.position, e.recorded_at into found_position, found_at from event e
         where e.class = 'T' and e.position >= middle order by e.position limit 1;
        if found_position is null or found_at > known_at then
            high := middle;
        else
            low := found_position;
        end if;
    end loop;
    return low;
end $$;

-- The spans of some users by the events at or below a position, from their first event to now.
-- The fold that every view of statuses stands on; slower than a view, and never behind.
--
-- Imported events were not written down in the order in which they happened, so there the status
-- is counted anew: online while any imported session is open. Of what happened at one instant, only
-- what was left of it makes a span.
create function fold_spans(users bigint[], upto bigint, as_shown boolean)
returns table (user_no bigint, from_at timestamptz, to_at timestamptz, status presence_status,
               from_position bigint, from_type event_type, from_reason end_reason,
               to_position bigint, to_type event_type, to_reason end_reason)
language sql stable set search_path from current as $$
    with told as (
        select e.user_no, e.sequence, e.position, e.occurred_at, e.type, e.reason, e.to_status,
               e.data ? 'imported' is true as imported, e.data,
               sum(case when e.data ? 'imported' is not true then 0
                        when e.type = 'session_opened' then 1
                        when e.type in ('session_closed', 'session_expired') then -1
                        else 0 end) over in_order as imported_open,
               count(*) filter (where e.type = 'visibility_changed') over in_order as stretch
          from event e
         where e.class = 'T' and e.user_no = any (users) and e.position <= upto
        window in_order as (partition by e.user_no order by e.occurred_at, e.sequence)
    ), folded as (
        select t.*,
               case when t.imported and t.imported_open > 0 then 'online'
                    when t.imported then 'offline'
                    when as_shown and bool_or(t.data ->> 'invisible' = 'true')
                             filter (where t.type = 'visibility_changed')
                             over (partition by t.user_no, t.stretch) then 'offline'
                    else t.to_status end as status
          from told t
    ), changed as (
        select f.*, lag(f.position) over in_order is null
                    or f.status is distinct from lag(f.status) over in_order as changes
          from folded f
        window in_order as (partition by f.user_no order by f.occurred_at, f.sequence)
    ), left_over as (
        select distinct on (c.user_no, c.occurred_at) c.* from changed c where c.changes
         order by c.user_no, c.occurred_at, c.sequence desc
    ), turning as (
        select l.*, lag(l.position) over in_order is null
                    or l.status is distinct from lag(l.status) over in_order as turns
          from left_over l
        window in_order as (partition by l.user_no order by l.occurred_at)
    )
    select t.user_no, t.occurred_at, lead(t.occurred_at) over in_order, t.status, t.position,
           t.type, t.reason, lead(t.position) over in_order, lead(t.type) over in_order,
           lead(t.reason) over in_order
      from turning t where t.turns
    window in_order as (partition by t.user_no order by t.occurred_at)
$$;

-- Makes the tables of one version of a view.
create function make_view(view text, version integer) returns void language plpgsql
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
            constraint %I exclude using gist (user_no with =, during with &&)
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

-- Lets the stable names of a view show that version.
create function show_view(view text, version integer) returns void language plpgsql
security definer set search_path from current as $$
begin
    execute format('create or replace view %I as select * from %I', view,
        format('%s_%s', view, version));
    if view = 'status_daily' then
        execute format('create or replace view status_daily_open as select * from %I',
            format('status_daily_open_%s', version));
    end if;
end $$;

-- Drops one version of a view, which must not be the live one.
create function drop_view(view text, version integer) returns void language plpgsql
security definer set search_path from current as $$
begin
    execute format('drop table if exists %I', format('%s_%s', view, version));
    if view = 'status_daily' then
        execute format('drop table if exists %I', format('status_daily_open_%s', version));
    end if;
    delete from view_version v where v.view = drop_view.view and v.version = drop_view.version;
end $$;

do $$
declare
    name text;
begin
    foreach name in array array['status_span', 'session_span', 'occupancy', 'status_daily'] loop
        perform make_view(name, 1);
        perform show_view(name, 1);
        insert into view_version (view, version, state) values (name, 1, 'live');
    end loop;
end $$;

grant select, update on view_version to rollcall_api;
grant select, insert, delete on dead_letter to rollcall_api;
grant select on view_version, dead_letter to rollcall_auditor;
grant select on status_span, session_span, occupancy, status_daily, status_daily_open
    to rollcall_api, rollcall_auditor;
revoke all on function make_view, show_view, drop_view from public;
