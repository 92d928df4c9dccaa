-- Of the users above $1, up to $2, live sessions whose last sign of life is not the log's, as far
-- as the newest positions (above $3, up to $4) tell. What is later than all that was recorded below
-- them ($5: they go back to the beginning) must be among them.
with heard as materialized (
    select e.position, e.class, e.type, e.user_no, e.session_id, e.occurred_at, e.recorded_at
      from event e where e.position > $3 and e.position <= $4
), told as (
    select case when $5 then '-infinity'
                else (select h.recorded_at from heard h order by h.position limit 1) end as from_at
), signs as (
    select h.session_id, max(h.occurred_at) as newest from heard h
     where h.user_no > $1 and h.user_no <= $2 and h.type in ('heartbeat', 'session_opened')
     group by h.session_id
), transitions as (
    -- A session whose row was lost and mended may run anew from the last of these.
    select h.user_no, max(h.occurred_at) as newest from heard h
     where h.user_no > $1 and h.user_no <= $2 and h.class = 'T' group by h.user_no
)
select l.session_id, l.user_no, l.opened_position, l.last_seen, s.newest,
       coalesce(nullif(t.from_at, '-infinity'), l.opened_at) as by_then
  from live_session l
 cross join told t
  left join signs s on s.session_id = l.session_id
  left join transitions o on o.user_no = l.user_no
 where l.user_no > $1 and l.user_no <= $2
   and (l.last_seen > $6 or l.last_seen < s.newest
        or (l.last_seen > t.from_at
            and l.last_seen > coalesce(greatest(s.newest, o.newest), '-infinity')))
 order by l.session_id limit 100
