-- A page of logins and ends onto `session_span`: what opened here, ended here or not; and the ends
-- of what had opened before.
with page as (
    select e.user_no, e.position, e.occurred_at, e.type, e.reason, e.session_id, e.data
      from event e
     where e.class = 'T' and e.position > $1 and e.position <= $2 and e.user_no <> all ($3)
       and e.type in ('session_opened', 'session_closed', 'session_expired')
), ended as (
    select * from page where type in ('session_closed', 'session_expired')
), finished as (
    update session_span_{v} s
       set ended_at = e.occurred_at, ended_position = e.position, reason = e.reason
      from ended e
     where s.session_id = e.session_id and s.ended_at is null and s.user_no = e.user_no
       and s.opened_position <= $1
    returning 1
)
insert into session_span_{v} (session_id, user_no, opened_at, ended_at, opened_position,
    ended_position, kind, reason, imported, invisible)
select o.session_id, o.user_no, o.occurred_at, e.occurred_at, o.position, e.position,
       (o.data ->> 'kind')::device_kind, e.reason, o.data ? 'imported',
       invisible_at(o.user_no, o.position)
  from page o
  left join ended e on e.session_id = o.session_id and e.position > o.position
 where o.type = 'session_opened'
