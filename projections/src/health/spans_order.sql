-- Of the users $1, spans that do not follow each other, and last ones that are not the present as
-- far as the view ($2) knows it. {v} stands for the version of the view.
with told as (
    select s.user_no, s.from_at, s.to_at, s.status, s.from_position, s.to_position,
           lag(s.from_position) over in_order as before_position,
           lag(s.from_at) over in_order as before_from,
           lag(coalesce(s.to_at, 'infinity')) over in_order as before_to,
           lead(s.from_at) over in_order is null as is_last
      from status_span_{v} s where s.user_no = any ($1)
    window in_order as (partition by s.user_no order by s.from_at)
)
select t.user_no, t.from_position, coalesce(t.before_position, 0) as before_position, t.from_at,
       nullif(t.before_to, 'infinity') as before_to, t.to_at, t.status::text as status,
       p.status::text as present,
       case when t.from_at < t.before_to then 'overlap'
            when t.from_at > t.before_to then 'hole' else 'end' end as what
  from told t
  left join current_status p on p.user_no = t.user_no and p.own_since is not null
       and p.position <= $2
 where t.from_at <> t.before_to
    or (t.is_last and p.user_no is not null and (t.to_at is not null or t.status <> p.status))
 order by t.user_no, t.from_at limit 100
