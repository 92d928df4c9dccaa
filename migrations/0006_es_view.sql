-- The transitions in postgres-es' seven columns: any cqrs-es tool can replay our log.
-- The payload is what domain/src/event.rs deserialises.
create view presence_events as
select 'presence'::text as aggregate_type,
       e.user_no::text as aggregate_id,
       e.sequence,
       e.type::text as event_type,
       '1'::text as event_version,
       (jsonb_strip_nulls(jsonb_build_object(
            'type', e.type,
            'at', rfc3339(e.occurred_at),
            'session', e.session_id,
            'reason', e.reason,
            case when e.type in ('action_allowed', 'action_refused')
                 then 'action' else 'source' end,
            w.word)) || coalesce(e.data, '{}'))::json as payload,
       -- cqrs-es reads texts here, and nothing else.
       json_strip_nulls(json_build_object('position', e.position::text,
                                          'actor', e.actor_no::text)) as metadata
from event e
left join word w on w.word_no = e.word_no
where e.class = 'T' and e.user_no is not null;
