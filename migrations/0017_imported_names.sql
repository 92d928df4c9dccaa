-- The names of imported sessions that have not ended yet. They are no part of the present, so
-- neither live_session nor ended_session has them: until now a second user's import, or a login,
-- could take such a name, and its end could not be recorded.

create table imported_session (
    session_id uuid primary key,
    user_no    bigint not null
);

-- Imports that were cut off have left some open. Where two users have one name, it is taken anyway.
insert into imported_session (session_id, user_no)
select (o.entry ->> 0)::uuid, s.user_no
  from current_status s
 cross join lateral jsonb_array_elements(s.state #> '{imported,open}') o (entry)
 where jsonb_typeof(s.state #> '{imported,open}') = 'array'
on conflict do nothing;

grant select on imported_session to rollcall_api, rollcall_auditor;

-- `append` as it stands, but for two places: a login's name is looked for here too, and an imported
-- session's is kept here from its login to its end.
do $$
declare
    v_source text := pg_get_functiondef('append'::regproc);
    v_used   constant text := 'left join ended_session x on x.session_id = e.session_id';
    v_opened constant text := '), opened as (';
begin
    if strpos(v_source, v_used) = 0 or strpos(v_source, v_opened) = 0 then
        raise exception 'append is not as this migration knows it';
    end if;
    v_source := replace(v_source, v_used, $new$left join lateral (
                               select d.session_id from ended_session d
                                where d.session_id = e.session_id
                                union all
                               select i.session_id from imported_session i
                                where i.session_id = e.session_id) x on true$new$);
    v_source := replace(v_source, v_opened, $new$), held as (
            insert into imported_session (session_id, user_no)
            select g.session_id, g.user_no from logged g
             where g.type = 'session_opened' and g.data ? 'imported'
        ), let_go as (
            delete from imported_session i
             where i.session_id = any (array(
                select g.session_id from logged g
                 where g.type in ('session_closed', 'session_expired') and g.data ? 'imported'))
        ), opened as ($new$);
    execute v_source;
end $$;
