-- How many there are in each status as others were shown them, by the sums of the view and by the
-- present, both as of the view's checkpoint ($1). {v} stands for the version of the view.
with waiting as (
    select user_no, min(position) - 1 as upto from dead_letter
     where view = 'occupancy' and version = {v} group by user_no
), late as (
    -- Who changed since, or has imported sessions open, which are no part of the present.
    select s.user_no, $1::bigint as upto from current_status s
     where (s.position > $1 or (s.own_since is null
                                and jsonb_array_length(s.state #> '{imported,open}') > 0))
       and s.user_no not in (select user_no from waiting)
), apart as (
    select * from waiting union all select * from late
), people as (
    select case when s.invisible then 'offline' else s.status end as status, count(*) as n
      from current_status s
     where s.user_no not in (select user_no from apart)
     group by 1
    union all
    select f.status, 1
      from apart a
     cross join lateral fold_spans(array[a.user_no], a.upto, true) f
     where f.to_at is null
), summed as (
    select coalesce(sum(online), 0) as online, coalesce(sum(away), 0) as away,
           coalesce(sum(busy), 0) as busy, coalesce(sum(dnd), 0) as dnd,
           coalesce(sum(offline), 0) as offline
      from occupancy_{v}
)
select format('online %s, away %s, busy %s, dnd %s, offline %s',
              coalesce(sum(n) filter (where status = 'online'), 0),
              coalesce(sum(n) filter (where status = 'away'), 0),
              coalesce(sum(n) filter (where status = 'busy'), 0),
              coalesce(sum(n) filter (where status = 'dnd'), 0),
              coalesce(sum(n) filter (where status = 'offline'), 0)) as expected,
       (select format('online %s, away %s, busy %s, dnd %s, offline %s', online, away, busy, dnd,
                      offline) from summed) as found
  from people
