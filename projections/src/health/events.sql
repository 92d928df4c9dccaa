-- The transitions of users above $1, up to $2, but those of $3, as `presence_events` has them: by
-- number here, and with what the log says beside the payload.
select e.user_no, e.position, e.sequence, e.occurred_at, e.recorded_at,
       e.from_status::text as from_status, e.to_status::text as to_status,
       jsonb_strip_nulls(jsonb_build_object(
            'type', e.type,
            'at', rfc3339(e.occurred_at),
            'session', e.session_id,
            'reason', e.reason,
            case when e.type in ('action_allowed', 'action_refused')
                 then 'action' else 'source' end,
            w.word)) || coalesce(e.data, '{}') as payload
  from event e
  left join word w on w.word_no = e.word_no
 where e.class = 'T' and e.user_no > $1 and e.user_no <= $2 and e.user_no <> all ($3)
 order by e.user_no, e.sequence, e.position
