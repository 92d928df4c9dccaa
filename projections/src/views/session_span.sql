-- A page of logins and ends onto `session_span`: what opened here, with its end where that is known
-- by {known}; and the ends of what had opened before.
with finished as (
    update session_span_{v} s
       set ended_at = e.occurred_at, ended_position = e.position, reason = e.reason
      from event e
     where e.class = 'T' and e.position > $1 and e.position <= $2 and e.user_no <> all ($3)
       and e.type in ('session_closed', 'session_expired')
       and s.session_id = e.session_id and s.ended_at is null and s.user_no = e.user_no
       and s.opened_position <= $1
    returning 1
)
insert into session_span_{v} (session_id, user_no, opened_at, ended_at, opened_position,
    ended_position, kind, reason, imported, invisible)
select o.session_id, o.user_no, o.occurred_at, e.occurred_at, o.position, e.position,
       (o.data ->> 'kind')::device_kind, e.reason, o.data ? 'imported',
       -- Hardly anybody ever hides: no call for the others.
       exists (select from event v
                where v.class = 'T' and v.type = 'visibility_changed' and v.user_no = o.user_no
                  and v.position <= o.position)
           and invisible_at(o.user_no, o.position)
  from event o
  left join lateral (
        select e.occurred_at, e.position, e.reason from event e
         where e.class = 'T' and e.user_no = o.user_no and e.sequence > o.sequence
           and e.position > o.position and e.position <= {known}
           and e.session_id = o.session_id and e.type in ('session_closed', 'session_expired')
         order by e.sequence limit 1) e on true
 where o.class = 'T' and o.position > $1 and o.position <= $2 and o.user_no <> all ($3)
   and o.type = 'session_opened'
