-- Some users' spans anew, from the whole of their log.
insert into status_span_{v} (user_no, from_at, to_at, status, from_position, from_type,
    from_reason, to_position, to_type, to_reason)
select f.user_no, f.from_at, f.to_at, f.status, f.from_position, f.from_type, f.from_reason,
       f.to_position, f.to_type, f.to_reason
  from fold_spans($3, $2, false) f
 where $1::bigint <= $2
