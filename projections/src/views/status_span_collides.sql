-- Users with something new at the very instant at which their open span began: what that span was
-- is settled only now, so they are folded anew.
select distinct e.user_no
  from event e
  join status_span_{v} s on s.user_no = e.user_no and s.to_at is null
 where e.class = 'T' and e.position > $1 and e.position <= $2
   and e.from_status is distinct from e.to_status and e.occurred_at <= s.from_at
