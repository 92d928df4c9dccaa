-- Of the users $1, the sessions that differ from the log up to the view's checkpoint ($2).
with told as (
    select e.user_no, e.position, e.session_id, e.type, e.occurred_at, e.reason, e.data,
           e.data ->> 'invisible' = 'true' as hides
      from event e
     where e.class = 'T' and e.user_no = any ($1) and e.position <= $2
       and e.type in ('session_opened', 'session_closed', 'session_expired', 'visibility_changed')
), folded as (
    select o.position as opened_position, o.user_no, o.session_id, o.occurred_at as opened_at,
           x.occurred_at as ended_at, x.position as ended_position, x.reason,
           o.data ->> 'kind' as kind, o.data ? 'imported' as imported,
           coalesce((select v.hides from told v
                      where v.user_no = o.user_no and v.type = 'visibility_changed'
                        and v.position <= o.position order by v.position desc limit 1), false)
           or exists (select from told v
                       where v.user_no = o.user_no and v.type = 'visibility_changed' and v.hides
                         and v.position > o.position
                         and (x.position is null or v.position < x.position)) as invisible
      from told o
      left join lateral (select * from told t
                          where t.user_no = o.user_no and t.session_id = o.session_id
                            and t.type in ('session_closed', 'session_expired')
                            and t.position > o.position
                          order by t.position limit 1) x on true
     where o.type = 'session_opened'
), kept as (
    select s.opened_position, s.user_no, s.session_id, s.opened_at, s.ended_at, s.ended_position,
           s.reason, s.kind::text as kind, s.imported, s.invisible
      from session_span_{v} s where s.user_no = any ($1)
)
select coalesce(f.user_no, k.user_no) as user_no,
       coalesce(f.opened_position, k.opened_position) as position,
       coalesce(f.ended_position, k.ended_position, 0) as other,
       coalesce(f.opened_at, k.opened_at) as since,
       coalesce(format('session %s from %s to %s, ended %s, kind %s, imported %s, invisible %s',
                       f.session_id, rfc3339(f.opened_at), coalesce(rfc3339(f.ended_at), 'now'),
                       f.reason, f.kind, f.imported, f.invisible), 'no session') as expected,
       coalesce(format('session %s from %s to %s, ended %s, kind %s, imported %s, invisible %s',
                       k.session_id, rfc3339(k.opened_at), coalesce(rfc3339(k.ended_at), 'now'),
                       k.reason, k.kind, k.imported, k.invisible), 'no session') as found
  from folded f
  full join kept k on k.opened_position = f.opened_position
 where f is distinct from k
 order by 1, 2 limit 100
