-- Mending what is made from the log. The log itself is never touched.

-- What was folded anew, and where it stood. Not an event: an event says what happened to a person,
-- and of a repair nothing did; a `corrected` would say of a position that it is wrong, where it was
-- right all along and our copy of it was not. Auditors read it here; nodes follow it, since what
-- they keep in memory came from the row that was wrong.
create table repair (
    repair_no   bigint generated always as identity (cache 1) primary key,
    repaired_at timestamptz not null default clock_timestamp(),
    what        text not null,     -- `present`, or the name of a view
    version     integer,           -- of that view
    user_no     bigint,            -- none: everybody's
    position    bigint not null,   -- up to which the log was folded
    found       jsonb              -- what stood there instead: numbers and statuses, no texts
);
create index repair_present on repair (repair_no) where what = 'present';
grant select on repair to rollcall_api, rollcall_auditor;
grant insert on repair to rollcall_api;

-- Puts one user's present back to what the log folds to, and says so. Under the append lock, and
-- only while the user's last transition is still the one that was folded: else false, fold again.
-- No row of `p_row` and `p_sessions` lacks a column; what no transition decides (signs of life) is
-- kept where a live row has it. `p_orphans`: ended sessions that the log does not know.
create function repair_present(p_user bigint, p_position bigint, p_row jsonb, p_sessions jsonb,
                               p_orphans uuid[])
returns boolean language plpgsql security definer set search_path from current as $$
declare
    v_last  bigint;
    v_found jsonb;
begin
    perform pg_advisory_xact_lock(append_lock_key());
    select e.position into v_last from event e where e.class = 'T' and e.user_no = p_user
     order by e.sequence desc limit 1;
    if coalesce(v_last, 0) <> p_position then
        return false;
    end if;

    select jsonb_build_object('status', s.status, 'sequence', s.sequence, 'position', s.position,
                              'since', rfc3339(s.since), 'live_sessions', s.live_sessions,
                              'invisible', s.invisible)
      into v_found from current_status s where s.user_no = p_user;
    v_found := coalesce(v_found, '{}') || jsonb_build_object('sessions',
        (select count(*) from live_session l where l.user_no = p_user));
    insert into repair (what, user_no, position, found)
    values ('present', p_user, p_position, v_found);

    -- Of a user the log never saw nothing is left.
    delete from current_status s where s.user_no = p_user;
    if p_position > 0 then
        insert into current_status select * from jsonb_populate_record(null::current_status, p_row);
    end if;

    delete from live_session l where l.user_no = p_user
       or l.session_id in (select x.session_id
                             from jsonb_populate_recordset(null::live_session, p_sessions) x);
    insert into live_session
    select x.* from jsonb_populate_recordset(null::live_session, p_sessions) x;
    update live_session l
       set check_at = least(lease_end(l.last_seen, l.lease_ms),
                            case when l.active then lease_end(l.last_seen, l.away_after_ms) end)
     where l.user_no = p_user;

    delete from ended_session x where x.session_id = any (p_orphans)
       and not exists (select from event e where e.class = 'T' and e.position = x.position
                          and e.user_no = x.user_no and e.session_id = x.session_id
                          and e.type in ('session_closed', 'session_expired'));
    insert into ended_session (session_id, user_no, ended_at, position, reason)
    select e.session_id, e.user_no, e.occurred_at, e.position, e.reason from event e
     where e.class = 'T' and e.user_no = p_user
       and e.type in ('session_closed', 'session_expired')
    on conflict (session_id) do nothing;

    delete from guard_key g where g.user_no = p_user
       and not exists (select from event e where e.class = 'T' and e.position = g.position
                          and e.user_no = g.user_no
                          and e.type in ('action_allowed', 'action_refused'));
    delete from detail d where d.user_no = p_user
       and not exists (select from event e where e.class = 'T' and e.position = d.position);
    return true;
end $$;
revoke all on function repair_present from public;

-- One node at a time lets leaves go. Held by the session, as detaching takes no transaction.
create function try_retention_lock() returns boolean language sql volatile security definer
set search_path from current as $$
    select pg_try_advisory_lock(hashtextextended('retention of ' || current_schema(), 0))
$$;
revoke all on function try_retention_lock from public;
