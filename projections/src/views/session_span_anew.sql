-- Some users' sessions anew, from the whole of their log.
insert into session_span_{v} (session_id, user_no, opened_at, ended_at, opened_position,
    ended_position, kind, reason, imported, invisible)
select o.session_id, o.user_no, o.occurred_at, e.occurred_at, o.position, e.position,
       (o.data ->> 'kind')::device_kind, e.reason, o.data ? 'imported',
       invisible_at(o.user_no, o.position)
       or exists (select from event v
                   where v.class = 'T' and v.type = 'visibility_changed'
                     and v.user_no = o.user_no and v.data ->> 'invisible' = 'true'
                     and v.position > o.position and v.position <= $2
                     and (e.position is null or v.position < e.position))
  from event o
  left join event e on e.class = 'T' and e.user_no = o.user_no and e.session_id = o.session_id
       and e.type in ('session_closed', 'session_expired') and e.position > o.position
       and e.position <= $2
 where o.class = 'T' and o.user_no = any ($3) and o.type = 'session_opened' and o.position <= $2
   and $1::bigint <= $2
