-- Of the users $1, the spans that differ from the fold of the log up to the view's checkpoint ($2).
with folded as (
    select * from fold_spans($1, $2, false)
), kept as (
    select s.user_no, s.from_at, s.to_at, s.status, s.from_position, s.from_type, s.from_reason,
           s.to_position, s.to_type, s.to_reason
      from status_span_{v} s where s.user_no = any ($1)
)
select coalesce(f.user_no, k.user_no) as user_no,
       coalesce(f.from_position, 0) as position, coalesce(k.from_position, 0) as other,
       coalesce(f.from_at, k.from_at) as since,
       coalesce(format('%s from %s (%s %s at %s) to %s (%s %s at %s)', f.status,
                       rfc3339(f.from_at), f.from_type, f.from_reason, f.from_position,
                       coalesce(rfc3339(f.to_at), 'now'), f.to_type, f.to_reason,
                       f.to_position), 'no span') as expected,
       coalesce(format('%s from %s (%s %s at %s) to %s (%s %s at %s)', k.status,
                       rfc3339(k.from_at), k.from_type, k.from_reason, k.from_position,
                       coalesce(rfc3339(k.to_at), 'now'), k.to_type, k.to_reason,
                       k.to_position), 'no span') as found
  from folded f
  full join kept k on k.user_no = f.user_no and k.from_at = f.from_at
 where f is distinct from k
 order by 1, since limit 100
