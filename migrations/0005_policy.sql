-- Low-rate aggregates (the policy) live in the tables of stock postgres-es: who changed which
-- interval is in their trail, and is relayed from there into the log.
create table events (
    aggregate_type text not null,
    aggregate_id   text not null,
    sequence       bigint check (sequence >= 0) not null,
    event_type     text not null,
    event_version  text not null,
    payload        json not null,
    metadata       json not null,
    primary key (aggregate_type, aggregate_id, sequence)
);
create trigger events_append_only before update or delete on events
    for each row execute function refuse_change();

-- The policy in force, as postgres-es' PostgresViewRepository keeps it.
create table policy_view (
    view_id text primary key,
    version bigint check (version >= 0) not null,
    payload json not null
);
