-- Brings in, or takes out again ({sign}1), what some users are counted by the events up to {upto}.
with step as (
    select date_trunc('minute', f.from_at, 'UTC') as minute, f.status, {sign}1 as people
      from fold_spans($3, {upto}, true) f
    union all
    select date_trunc('minute', f.to_at, 'UTC'), f.status, -({sign}1)
      from fold_spans($3, {upto}, true) f where f.to_at is not null
)
insert into occupancy_{v} as o (minute, online, away, busy, dnd, offline)
select minute,
       coalesce(sum(people) filter (where status = 'online'), 0),
       coalesce(sum(people) filter (where status = 'away'), 0),
       coalesce(sum(people) filter (where status = 'busy'), 0),
       coalesce(sum(people) filter (where status = 'dnd'), 0),
       coalesce(sum(people) filter (where status = 'offline'), 0)
  from step where $1::bigint <= $2 group by minute
on conflict (minute) do update
   set online = o.online + excluded.online, away = o.away + excluded.away,
       busy = o.busy + excluded.busy, dnd = o.dnd + excluded.dnd,
       offline = o.offline + excluded.offline
