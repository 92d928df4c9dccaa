-- $1 endpoint, $2 < position <= $3, then the filter: types, statuses before and after, users,
-- groups.
-- An empty list lets all pass; the system's own events have to be named.
insert into webhook_delivery (webhook_id, position, user_no, next_at)
select $1, e.position, coalesce(e.user_no, 0), log_clock()
  from event e
 where e.class = 'T' and e.position > $2 and e.position <= $3
   and (e.type::text = any ($4) or (cardinality($4::text[]) = 0 and e.user_no is not null))
   and (cardinality($5::text[]) = 0 or e.from_status::text = any ($5))
   and (cardinality($6::text[]) = 0 or e.to_status::text = any ($6))
   and ((cardinality($7::bigint[]) = 0 and cardinality($8::text[]) = 0)
        or e.user_no = any ($7)
        or exists (select from membership m
                    where m.user_no = e.user_no and m.group_name = any ($8)))
on conflict do nothing
