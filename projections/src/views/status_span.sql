-- A page of own transitions onto `status_span`. The open span of a user is where it goes on from.
with page as (
    select e.user_no, e.sequence, e.position, e.occurred_at, e.type, e.reason, e.to_status
      from event e
     where e.class = 'T' and e.position > $1 and e.position <= $2 and e.user_no <> all ($3)
       -- Of all that happens to a user, this is what may begin a span.
       and (e.from_status is distinct from e.to_status or e.sequence = 1)
), told as (
    select p.user_no, p.sequence, p.position, p.occurred_at, p.type, p.reason, p.to_status as status
      from page p
    union all
    select s.user_no, 0, s.from_position, s.from_at, s.from_type, s.from_reason, s.status
      from (select distinct user_no from page) u
      -- The newest, and so the open one: found by its key, however long the history.
     cross join lateral (select * from status_span_{v} l where l.user_no = u.user_no
                          order by l.from_at desc limit 1) s
), left_over as (
    -- Of what happened at one instant, what was left of it.
    select distinct on (t.user_no, t.occurred_at) t.* from told t
     order by t.user_no, t.occurred_at, t.sequence desc
), turning as (
    select l.*, lag(l.position) over in_order is null
                or l.status is distinct from lag(l.status) over in_order as turns
      from left_over l
    window in_order as (partition by l.user_no order by l.occurred_at)
), span as (
    select t.*, lead(t.occurred_at) over in_order as to_at,
           lead(t.position) over in_order as to_position, lead(t.type) over in_order as to_type,
           lead(t.reason) over in_order as to_reason
      from turning t where t.turns
    window in_order as (partition by t.user_no order by t.occurred_at)
), closed as (
    update status_span_{v} s
       set to_at = n.to_at, to_position = n.to_position, to_type = n.to_type,
           to_reason = n.to_reason
      from span n
     where n.sequence = 0 and n.to_at is not null
       and s.user_no = n.user_no and s.from_at = n.occurred_at
    returning 1
)
insert into status_span_{v} (user_no, from_at, to_at, status, from_position, from_type,
    from_reason, to_position, to_type, to_reason)
select n.user_no, n.occurred_at, n.to_at, n.status, n.position, n.type, n.reason, n.to_position,
       n.to_type, n.to_reason
  from span n
 -- Counting what was closed makes it be closed first: no moment with two open spans.
 where n.sequence > 0 and (select count(*) from closed) >= 0
