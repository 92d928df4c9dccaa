-- Some users' days anew, from the whole of their log.
with span as (
    select f.*, min(f.from_at) over (partition by f.user_no) as first_at
      from fold_spans($3, $2, true) f where $1::bigint <= $2
), noted as (
    insert into status_daily_open_{v} (user_no, first_at, at, status)
    select user_no, first_at, from_at, status from span where to_at is null
), dealt as (
    select s.user_no, s.status, d.day::date as day,
           extract(epoch from least(s.to_at at time zone 'UTC', d.day + interval '1 day')
                              - greatest(s.from_at at time zone 'UTC', d.day)) * 1000000 as us
      from span s
     cross join lateral generate_series(date_trunc('day', s.from_at at time zone 'UTC'),
                                        s.to_at at time zone 'UTC', interval '1 day') d (day)
     where s.status <> 'offline' and s.to_at is not null
)
insert into status_daily_{v} (user_no, day, online_us, away_us, busy_us, dnd_us)
select user_no, day, coalesce(sum(us) filter (where status = 'online'), 0),
       coalesce(sum(us) filter (where status = 'away'), 0),
       coalesce(sum(us) filter (where status = 'busy'), 0),
       coalesce(sum(us) filter (where status = 'dnd'), 0)
  from dealt where us > 0 group by user_no, day
