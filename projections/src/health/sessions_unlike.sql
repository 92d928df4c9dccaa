-- Of the users $1, the sessions that differ from the log up to the view's checkpoint ($2).
with told as (
    select e.user_no, e.position, e.session_id, e.type, e.occurred_at, e.reason, e.data,
           e.type = 'visibility_changed' as turns,
           e.type = 'visibility_changed' and e.data ->> 'invisible' = 'true' as hides
      from event e
     where e.class = 'T' and e.user_no = any ($1) and e.position <= $2
       and e.type in ('session_opened', 'session_closed', 'session_expired', 'visibility_changed')
), counted as (
    select t.*, count(*) filter (where t.turns) over so_far as stretch,
           count(*) filter (where t.hides) over so_far as hidings,
           count(*) filter (where t.hides) over (partition by t.user_no) as hidings_to_now
      from told t window so_far as (partition by t.user_no order by t.position)
), shown as (
    -- A stretch begins with what was chosen, and lasts until something else is.
    select c.*, bool_or(c.hides) over (partition by c.user_no, c.stretch) as hidden
      from counted c
), paired as (
    -- The next that the log says of a session that was opened is its end.
    select s.*, lead(s.position) over in_order as ended_position,
           lead(s.occurred_at) over in_order as ended_at,
           lead(s.reason) over in_order as end_reason,
           lead(s.hidings) over in_order as hidings_to_end
      from shown s where not s.turns
    window in_order as (partition by s.user_no, s.session_id order by s.position)
), folded as (
    select p.position as opened_position, p.user_no, p.session_id, p.occurred_at as opened_at,
           p.ended_at, p.ended_position, p.end_reason as reason, p.data ->> 'kind' as kind,
           p.data ? 'imported' as imported,
           p.hidden or coalesce(p.hidings_to_end, p.hidings_to_now) > p.hidings as invisible
      from paired p where p.type = 'session_opened'
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
