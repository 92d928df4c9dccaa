-- Users whom a page of the log does not simply carry on: imported events come in another order
-- than that in which they happened, and the first own event after them ends what they left open.
select distinct e.user_no
  from event e
  left join current_status s on s.user_no = e.user_no and s.own_since = e.occurred_at
 where e.class = 'T' and e.position > $1 and e.position <= $2 and e.user_no is not null
   and (e.data ? 'imported' or (s.user_no is not null and e.sequence > 1))
