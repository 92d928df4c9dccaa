-- A build folds everybody one after the other, as at the head with which it begins, before it
-- follows the log page by page: a user's rows are written once, together, in the order of the key.
-- `filled_to`: nothing of users numbered above it is in yet; null: everybody is in.
alter table view_version add column filled_to bigint;

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
