-- Sessions during which a user went invisible.
update session_span_{v} s
   set invisible = true
  from event e
 where e.class = 'T' and e.position > $1 and e.position <= $2 and e.user_no <> all ($3)
   and e.type = 'visibility_changed' and e.data ->> 'invisible' = 'true'
   and s.user_no = e.user_no and s.opened_position < e.position
   and (s.ended_position is null or s.ended_position > e.position)
