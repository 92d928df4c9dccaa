-- The one clock, and when a lease is over.

-- Tests replace these two to move time; nothing else in the schema asks for the time of day.
create function log_clock() returns timestamptz language sql volatile as
    'select clock_timestamp()';
create function intake_clock() returns timestamptz language sql stable as
    'select statement_timestamp()';

-- As instants go over the wire: UTC, microseconds, always six digits.
create function rfc3339(at timestamptz) returns text language sql stable as
    $$ select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;

-- The instant at which `length_ms` outside silences has passed since `start`.
-- The same as `Silences::deadline` in domain/src/silence.rs.
create function lease_end(start timestamptz, length_ms integer)
returns timestamptz language plpgsql stable set search_path from current as $$
declare
    ends timestamptz := start + length_ms * interval '1 millisecond';
    gap record;
begin
    for gap in select from_at, to_at from silence where to_at > start order by from_at loop
        exit when gap.from_at >= ends;
        ends := ends + (gap.to_at - greatest(gap.from_at, start));
    end loop;
    return ends;
end $$;

-- The key of the append lock: one log a schema.
create function append_lock_key() returns bigint language sql stable set search_path from current as
    $$ select (x'726c'::bigint << 32) | current_schema()::regnamespace::oid::bigint $$;

-- Ends whoever has held the append lock for longer than `longer_than`. A node that waited in vain
-- calls it; the batch of the one who is ended is retried by its own node, under its own id.
create function free_append_lock(longer_than interval)
returns integer language sql volatile security definer set search_path from current as $$
    select count(pg_terminate_backend(l.pid))::integer
    from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
      and l.database = (select oid from pg_database where datname = current_database())
      and l.classid::bigint = append_lock_key() >> 32
      and l.objid::bigint = append_lock_key() & x'ffffffff'::bigint
      -- Somebody idle outside a transaction holds it for the whole of a session.
      and coalesce(a.xact_start, a.state_change) < clock_timestamp() - longer_than
$$;
