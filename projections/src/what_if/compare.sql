-- Sums up what was and what would have been of users $2 < user_no <= $3; $4 and $5: up to where and
-- when; $6: shorter than this is a flap.
with users as (
    select coalesce(array_agg(distinct s.user_no), '{}') as numbers
      from what_if_span s where s.name = $1 and s.user_no > $2 and s.user_no <= $3
), span as (
    select f.user_no, f.from_at, f.to_at, f.status, true as before
      from users u cross join lateral fold_spans(u.numbers, $4, false) f
    union all
    select s.user_no, s.from_at, s.to_at, s.status, false
      from what_if_span s where s.name = $1 and s.user_no > $2 and s.user_no <= $3
), moment as (
    -- Each instant at which either changes, and what either is from then on, where it changes.
    select user_no, from_at as at, max(status) filter (where before) as was,
           max(status) filter (where not before) as would
      from span group by user_no, from_at
), counted as (
    select m.*, count(was) over in_order as was_no, count(would) over in_order as would_no
      from moment m window in_order as (partition by user_no order by at)
), stretch as (
    select c.user_no, c.at, lead(c.at, 1, $5) over (partition by c.user_no order by c.at) as till,
           first_value(c.was) over (partition by c.user_no, c.was_no order by c.at) as was,
           first_value(c.would) over (partition by c.user_no, c.would_no order by c.at) as would
      from counted c
), days as (
    insert into what_if_day as d (name, day, status, before_us, after_us)
    select $1, (t.day at time zone 'UTC')::date, x.status,
           coalesce(sum(t.us) filter (where x.before), 0),
           coalesce(sum(t.us) filter (where not x.before), 0)
      from stretch s
     cross join lateral (values (s.was, true), (s.would, false)) x (status, before)
     cross join lateral (
            select g.day, (extract(epoch from least(s.till, g.day + interval '1 day')
                                   - greatest(s.at, g.day)) * 1000000)::bigint as us
              from generate_series(date_trunc('day', s.at), s.till, interval '1 day') g (day)) t
     where x.status <> 'offline' and t.us > 0
     group by 2, 3
    on conflict (name, day, status) do update
       set before_us = d.before_us + excluded.before_us, after_us = d.after_us + excluded.after_us
), changes as (
    select user_no, count(*) filter (where before) - 1 as before_changes,
           count(*) filter (where not before) - 1 as after_changes,
           count(*) filter (where before and to_at - from_at < $6) as before_flaps,
           count(*) filter (where not before and to_at - from_at < $6) as after_flaps
      from span group by user_no
), lengths as (
    select user_no, sum((extract(epoch from till - at) * 1000000)::bigint) as known_us,
           coalesce(sum((extract(epoch from till - at) * 1000000)::bigint)
                    filter (where was is distinct from would), 0) as changed_us
      from stretch where at < till group by user_no
)
insert into what_if_user (name, user_no, known_us, changed_us, before_changes, after_changes,
                          before_flaps, after_flaps)
select $1, c.user_no, coalesce(l.known_us, 0), coalesce(l.changed_us, 0), c.before_changes,
       c.after_changes, c.before_flaps, c.after_flaps
  from changes c left join lengths l using (user_no)
