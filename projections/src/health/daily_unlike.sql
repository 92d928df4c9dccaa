-- Of the users $1, those whose time in each status differs from the fold of the log up to the
-- view's checkpoint ($2), in all days together; what has not ended counts as far as the view has
-- come.
with span as (
    select f.user_no, f.status, f.from_at, f.from_position,
           greatest(f.from_at, coalesce(f.to_at, o.at, f.from_at)) as to_at
      from fold_spans($1, $2, true) f
      left join status_daily_open_{v} o on o.user_no = f.user_no
), length as (
    select *, (extract(epoch from to_at - from_at) * 1000000)::bigint as us from span
), folded as (
    select user_no, max(from_position) as position, max(to_at) as since,
           coalesce(sum(us) filter (where status = 'online'), 0) as online,
           coalesce(sum(us) filter (where status = 'away'), 0) as away,
           coalesce(sum(us) filter (where status = 'busy'), 0) as busy,
           coalesce(sum(us) filter (where status = 'dnd'), 0) as dnd
      from length group by user_no
), kept as (
    select d.user_no, sum(d.online_us) as online, sum(d.away_us) as away, sum(d.busy_us) as busy,
           sum(d.dnd_us) as dnd
      from status_daily_{v} d where d.user_no = any ($1) group by d.user_no
)
select user_no, coalesce(f.position, 0) as position, 0::bigint as other,
       coalesce(f.since, to_timestamp(0)) as since,
       format('microseconds online %s, away %s, busy %s, dnd %s', coalesce(f.online, 0),
              coalesce(f.away, 0), coalesce(f.busy, 0), coalesce(f.dnd, 0)) as expected,
       format('microseconds online %s, away %s, busy %s, dnd %s', coalesce(k.online, 0),
              coalesce(k.away, 0), coalesce(k.busy, 0), coalesce(k.dnd, 0)) as found
  from folded f
  full join kept k using (user_no)
 where (coalesce(f.online, 0), coalesce(f.away, 0), coalesce(f.busy, 0), coalesce(f.dnd, 0))
    <> (coalesce(k.online, 0), coalesce(k.away, 0), coalesce(k.busy, 0), coalesce(k.dnd, 0))
 order by user_no limit 100
