-- Users whom a page of the log does not simply carry on: imported events come in another order
-- than that in which they happened, and the first own event after them ends what they left open.
select distinct e.user_no
  from event e
 -- One user after the other by its key: a join would read everybody for each page.
  left join lateral (select s.own_since from current_status s where s.user_no = e.user_no
                      offset 0) own on e.sequence > 1
 where e.class = 'T' and e.position > $1 and e.position <= $2 and e.user_no is not null
   and (e.data ? 'imported' or own.own_since = e.occurred_at)
