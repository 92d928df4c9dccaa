-- A page of transitions onto `occupancy`, as others were shown them: each takes the user out of one
-- status and puts it into another.
with hidden as (
    select distinct v.user_no from event v where v.class = 'T' and v.type = 'visibility_changed'
       and v.position <= $2
), page as (
    select e.user_no, e.sequence, e.occurred_at, e.position, e.from_status, e.to_status,
           h.user_no is not null as ever_hidden
      from event e
      left join hidden h on h.user_no = e.user_no
     where e.class = 'T' and e.position > $1 and e.position <= $2 and e.user_no <> all ($3)
       and (e.from_status is distinct from e.to_status or e.sequence = 1
            or e.type = 'visibility_changed')
), shown as (
    select date_trunc('minute', p.occurred_at, 'UTC') as minute, p.sequence,
           case when p.ever_hidden and invisible_at(p.user_no, p.position - 1) then 'offline'
                else p.from_status end as before,
           case when p.ever_hidden and invisible_at(p.user_no, p.position) then 'offline'
                else p.to_status end as after
      from page p
), step as (
    select minute, before as status, -1 as people from shown where sequence > 1
    union all
    select minute, after, 1 from shown
)
insert into occupancy_{v} as o (minute, online, away, busy, dnd, offline)
select minute,
       coalesce(sum(people) filter (where status = 'online'), 0),
       coalesce(sum(people) filter (where status = 'away'), 0),
       coalesce(sum(people) filter (where status = 'busy'), 0),
       coalesce(sum(people) filter (where status = 'dnd'), 0),
       coalesce(sum(people) filter (where status = 'offline'), 0)
  from step group by minute
on conflict (minute) do update
   set online = o.online + excluded.online, away = o.away + excluded.away,
       busy = o.busy + excluded.busy, dnd = o.dnd + excluded.dnd,
       offline = o.offline + excluded.offline
