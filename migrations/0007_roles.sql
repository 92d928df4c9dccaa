-- Who may do what. Roles belong to the whole cluster, so another database may have made them.
--   rollcall_api      the server: reads, appends through `append`, keeps names; changes no event
--   rollcall_auditor  reads the log with its details
--   rollcall_analyst  reads the log and the present, without what people wrote
do $$
declare
    role_name text;
begin
    foreach role_name in array array['rollcall_api', 'rollcall_auditor', 'rollcall_analyst'] loop
        begin
            execute format('create role %I nologin', role_name);
        exception when duplicate_object or unique_violation then
            null; -- made by another database of this cluster, perhaps just now
        end;
    end loop;
end $$;

do $$
begin
    execute format('grant usage on schema %I to rollcall_api, rollcall_auditor, rollcall_analyst',
        current_schema());
    -- The server becomes rollcall_api on every connection that serves requests.
    if not pg_has_role(current_user, 'rollcall_api', 'member') then
        execute format('grant rollcall_api to %I', current_user);
    end if;
end $$;

grant select on event, current_status, live_session, ended_session, silence, account, word, batch,
    relay to rollcall_api, rollcall_auditor, rollcall_analyst;
grant select on detail to rollcall_api, rollcall_auditor;
grant select on guard_key, revocation, events, policy_view, presence_events to rollcall_api;
grant select on presence_events, events to rollcall_auditor;
grant insert on account, word, revocation, events, policy_view to rollcall_api;
grant update (username) on account to rollcall_api;
grant update on policy_view, revocation to rollcall_api;
grant delete on revocation to rollcall_api;

-- Nobody but append inserts events; nobody at all changes them.
revoke all on function append from public;
revoke all on function make_leaf from public;
revoke all on function free_append_lock from public;
grant execute on function append, free_append_lock, append_lock_key to rollcall_api;

-- Whoever may take advisory locks could hold the append lock and freeze the log.
do $$
declare
    lock_function regprocedure;
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        raise notice 'not superuser: advisory locks stay open to every role of this database';
        return;
    end if;
    for lock_function in
        select oid from pg_proc where proname like 'pg%advisory%'
           and pronamespace = 'pg_catalog'::regnamespace
    loop
        execute format('revoke execute on function %s from public', lock_function);
    end loop;
end $$;

-- What is kept only for a while. The newest batch stays: it is where the clock stands.
create function forget_old() returns void language sql volatile security definer
set search_path from current as $$
    delete from batch where recorded_at < log_clock() - interval '1 hour'
        and batch_no < (select max(batch_no) from batch);
    delete from guard_key where recorded_at < log_clock() - interval '24 hours';
    delete from revocation where expires_at < clock_timestamp() - interval '1 minute';
$$;
revoke all on function forget_old from public;
grant execute on function forget_old to rollcall_api;
