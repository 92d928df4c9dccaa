-- Visits: who is in a group only for as long as a session lives, as clients of a consultation are.
-- A visitor is a member like any other to whoever looks at the group, and is sent what comes to it
-- while there; nothing is kept for one who has left. Whoever erases a person finds it by user_no.

create table group_visit (
    session_id uuid not null,
    group_name text not null
               constraint visit_group_shape check (group_name ~ '^[A-Za-z0-9._@:+|-]{1,128}$'),
    user_no    bigint not null,
    since      timestamptz not null,
    primary key (session_id, group_name)
);
create index group_visit_group_name on group_visit (group_name, user_no);
create index group_visit_user_no on group_visit (user_no, group_name);

-- Begins a visit. A group with stored members is its service's: there nobody lets themselves in,
-- unless the token says so (`p_belongs`). `refusal`: group_full, not_a_member. Repeatable.
create function enter_group(p_group text, p_user bigint, p_session uuid, p_belongs boolean,
    p_members_max integer)
returns text language plpgsql volatile security definer set search_path from current
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    -- As for members: counts and the order of the changes hold only where whoever else joins waits.
    perform pg_advisory_xact_lock(membership_lock_key());
    if not p_belongs
       and exists (select from membership where group_name = p_group)
       and not exists (select from membership where group_name = p_group and user_no = p_user) then
        return 'not_a_member';
    end if;
    if (select count(*) from group_visit where group_name = p_group) >= p_members_max then
        return 'group_full';
    end if;
    insert into group_visit (session_id, group_name, user_no, since)
    values (p_session, p_group, p_user, log_clock()) on conflict do nothing;
    if found then
        insert into membership_change (change_no, group_name, user_no, changed_at)
        values (nextval('membership_change_number'), p_group, p_user, log_clock());
    end if;
    return null;
end $$;

-- Ends the visits of a session that is over; of all such sessions where none is named, since a
-- node may die before it says so. One that another connection goes on with is left alone.
create function end_visits(p_session uuid)
returns void language plpgsql volatile security definer set search_path from current
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    -- Mostly there is nothing to end, and no need to make others wait.
    if not exists (select from group_visit where p_session is null or session_id = p_session) then
        return;
    end if;
    perform pg_advisory_xact_lock(membership_lock_key());
    with over as (
        delete from group_visit v
         where (p_session is null or v.session_id = p_session)
           and not exists (select from live_session l where l.session_id = v.session_id)
        returning v.group_name, v.user_no
    )
    insert into membership_change (change_no, group_name, user_no, changed_at)
    select nextval('membership_change_number'), o.group_name, o.user_no, log_clock()
      from (select distinct group_name, user_no from over) o;
end $$;

grant select on group_visit to rollcall_api, rollcall_auditor;
revoke all on function enter_group, end_visits from public;
grant execute on function enter_group, end_visits to rollcall_api;
