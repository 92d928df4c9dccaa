-- Users with something new at the very instant at which their open span began: what that span was
-- is settled only now, so they are folded anew.
select distinct e.user_no
  from event e
 cross join lateral (select l.from_at from status_span_{v} l where l.user_no = e.user_no
                      order by l.from_at desc limit 1) s
 where e.class = 'T' and e.position > $1 and e.position <= $2
   and e.from_status is distinct from e.to_status and e.occurred_at <= s.from_at
