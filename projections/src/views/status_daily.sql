-- A page of transitions onto `status_daily`, as others were shown them: from one transition of a
-- user to the next is time in the status between them, dealt out over UTC days.
with hidden as (
    select distinct v.user_no from event v where v.class = 'T' and v.type = 'visibility_changed'
       and v.position <= $2
), page as (
    select e.user_no, e.sequence, e.occurred_at as at,
           case when h.user_no is not null and invisible_at(e.user_no, e.position) then 'offline'
                else e.to_status end as status
      from event e
      left join hidden h on h.user_no = e.user_no
     where e.class = 'T' and e.position > $1 and e.position <= $2 and e.user_no <> all ($3)
       and (e.from_status is distinct from e.to_status or e.sequence = 1
            or e.type = 'visibility_changed')
), told as (
    select p.user_no, p.sequence, p.at, p.status from page p
    union all
    select o.user_no, 0, o.at, o.status
      from (select distinct user_no from page) u
      join status_daily_open_{v} o on o.user_no = u.user_no
), stretch as (
    select t.user_no, t.at, t.status, lead(t.at) over in_order as to_at,
           first_value(t.at) over in_order as first_at,
           lead(t.at) over in_order is null as is_last
      from told t
    window in_order as (partition by t.user_no order by t.sequence)
), noted as (
    insert into status_daily_open_{v} as o (user_no, first_at, at, status)
    select user_no, first_at, at, status from stretch where is_last
    on conflict (user_no) do update set at = excluded.at, status = excluded.status
), dealt as (
    select s.user_no, s.status, d.day::date as day,
           extract(epoch from least(s.to_at at time zone 'UTC', d.day + interval '1 day')
                              - greatest(s.at at time zone 'UTC', d.day)) * 1000000 as us
      from stretch s
     cross join lateral generate_series(date_trunc('day', s.at at time zone 'UTC'),
                                        s.to_at at time zone 'UTC', interval '1 day') d (day)
     where s.status <> 'offline' and s.at < s.to_at
)
insert into status_daily_{v} as o (user_no, day, online_us, away_us, busy_us, dnd_us)
select user_no, day, coalesce(sum(us) filter (where status = 'online'), 0),
       coalesce(sum(us) filter (where status = 'away'), 0),
       coalesce(sum(us) filter (where status = 'busy'), 0),
       coalesce(sum(us) filter (where status = 'dnd'), 0)
  from dealt where us > 0 group by user_no, day
on conflict (user_no, day) do update
   set online_us = o.online_us + excluded.online_us, away_us = o.away_us + excluded.away_us,
       busy_us = o.busy_us + excluded.busy_us, dnd_us = o.dnd_us + excluded.dnd_us
