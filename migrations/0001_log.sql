-- The log: what happened, in the order in which it was committed.
--
-- Read this first. Everything that Rollcall knows is a fold of `event`; every other table can be
-- made again from it, save `account` and `detail`, which hold what names a person and what people
-- wrote. The log itself holds no outside name and no free text, so that a person can be erased
-- without touching it.

-- Stored names are for ever. A new one is added at the end, never renamed.
create type presence_status as enum ('online', 'away', 'busy', 'dnd', 'offline');

create type event_type as enum (
    'session_opened', 'session_resumed', 'heartbeat', 'session_closed', 'session_expired',
    'activity_changed', 'claim_set', 'claim_cleared', 'claim_expired', 'visibility_changed',
    'action_allowed', 'action_refused', 'corrected', 'user_erased',
    -- of the system itself
    'service_resumed', 'timeline_changed', 'policy_changed', 'partition_dropped', 'audit_read');

-- After RADIUS' Acct-Terminate-Cause (RFC 2866, 5.10) where one fits.
create type end_reason as enum (
    'user_request', 'lost_carrier', 'idle_timeout', 'session_timeout', 'admin_reset');

create type device_kind as enum ('web', 'mobile', 'desktop', 'service', 'other');

-- Who is who. `user_id` is the outside name; everything else knows only `user_no`.
-- Whoever acts has a number too: admins and services are users without sessions.
create table account (
    user_no  bigint generated always as identity primary key,
    user_id  text not null constraint account_user_id_key unique
             constraint account_user_id_shape check (user_id ~ '^[A-Za-z0-9._@:+|-]{1,128}$'),
    username text constraint account_username_length check (length(username) <= 256)
);

-- Names that systems give: sources of claims and actions of guards. The log holds their number.
create table word (
    word_no bigint generated always as identity primary key,
    word    text not null constraint word_key unique
            constraint word_length check (length(word) between 1 and 160)
);

-- Positions. `cache 1`, and drawn under the append lock alone: so commit order is position order,
-- and a reader that has seen position n can never miss an event at or below n. Holes are possible
-- and mean nothing.
create sequence log_pos as bigint minvalue 1 cache 1;

-- The log. Partitioned by class, then by range of position:
--   'T' transitions: whatever may change a status. Kept for ever.
--   'H' heartbeats: signs of life. Whole leaves past retention are dropped.
-- Columns stand in the order that packs a heartbeat tightest.
create table event (
    position    bigint not null,
    user_no     bigint,              -- none: an event of the system itself
    sequence    bigint,              -- n-th transition of this user; gapless; none for heartbeats
    occurred_at timestamptz not null, -- when it happened; of a lapse, its deadline
    recorded_at timestamptz not null, -- when it was written down; follows position
    session_id  uuid,
    type        event_type not null,
    idle_ms     integer,             -- heartbeats: how long the person had been idle
    from_status presence_status,     -- transitions: the status before it
    to_status   presence_status,     -- ... and after it
    reason      end_reason,          -- why a session ended
    actor_no    bigint,              -- who caused it; none for what time does by itself
    word_no     bigint,              -- the claim's source, or the guard's action
    class       "char" not null,
    data        jsonb,               -- what else this type of event says; never a name or free text
    constraint event_class check (class in ('T', 'H')),
    constraint event_heartbeat_class check ((type = 'heartbeat') = (class = 'H')),
    constraint event_sequence check (class = 'H' or (user_no is null) = (sequence is null)),
    constraint event_position check (position > 0)
) partition by list (class);

create table event_t partition of event for values in ('T') partition by range (position);
create table event_h partition of event for values in ('H') partition by range (position);

create index event_t_position on event_t (position);
-- Heartbeats are written a hundred times more often than read: a tree would cost each of them a
-- fifth more. They are read by windows of positions.
create index event_h_position on event_h using brin (position)
    with (pages_per_range = 32, autosummarize = on);

-- What people wrote and what names a device or an address: apart, so that it can be erased.
-- Keys in use: device_id, label, text, reason.
create table detail (
    position bigint primary key,
    user_no  bigint not null,
    detail   jsonb not null
);
create index detail_user_no on detail (user_no);

-- One row a batch, kept for an hour (the newest for ever). A node that lost the answer sends the
-- same batch again and gets the same verdicts. The newest row is also where the clock stands.
create table batch (
    batch_no       bigint generated always as identity (cache 1) primary key,
    batch_id       uuid not null constraint batch_id_key unique,
    recorded_at    timestamptz not null,
    taken_at       timestamptz not null, -- when the batch reached the server, before any waiting
    first_position bigint not null,      -- of the block of positions drawn for this batch
    head           bigint not null,      -- the log's newest position after it
    head_found     bigint not null,      -- ... and before it
    resumed_from   timestamptz,          -- where a silence began that this batch ended
    verdicts       text not null         -- a letter a command: see append
);

-- Our outages: no lease runs in them. Also in the log, as service_resumed.
create table silence (
    position bigint primary key,
    from_at  timestamptz not null,
    to_at    timestamptz not null,
    constraint silence_order check (from_at < to_at)
);
create index silence_to_at on silence (to_at);

-- How far the events of the low-rate aggregates (the policy) have been relayed into the log.
create table relay (
    source text primary key,
    number bigint not null
);

-- Append-only by trigger as well as by privilege: not even the owner changes an event by mistake.
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the log is append-only: % of % refused', tg_op, tg_table_name
        using errcode = 'insufficient_privilege';
end $$;

create trigger event_append_only before update or delete on event
    for each row execute function refuse_change();
create trigger event_no_truncate before truncate on event
    for each statement execute function refuse_change();

-- Leaves. Each holds 2^24 positions; `projections/src/leaves.rs` keeps some ahead of the log.
-- `create table` + `attach partition` asks for no lock that a reader's open transaction holds up.
create function make_leaf(parent text, from_position bigint, to_position bigint)
returns text language plpgsql security definer set search_path from current as $$
declare
    leaf text := format('%s_%s', parent, lpad(from_position::text, 16, '0'));
begin
    if parent not in ('event_t', 'event_h') then
        raise exception 'no such parent: %', parent;
    end if;
    -- One at a time: two nodes that made the same leaf would fail on each other's half.
    perform pg_advisory_xact_lock(hashtextextended('make_leaf of ' || current_schema(), 0));
    if to_regclass(leaf) is not null then
        return leaf;
    end if;
    execute format('create table %I (like %I including defaults including constraints)',
        leaf, parent);
    if parent = 'event_t' then
        -- Unique within the leaf; across leaves by append, and by a health check.
        execute format('create unique index %I on %I (user_no, sequence)',
            leaf || '_user_sequence', leaf);
    end if;
    execute format('create trigger no_truncate before truncate on %I
        for each statement execute function refuse_change()', leaf);
    execute format('alter table %I attach partition %I for values from (%s) to (%s)',
        parent, leaf, from_position, to_position);
    return leaf;
end $$;

select make_leaf(parent, n * 16777216, (n + 1) * 16777216)
from unnest(array['event_t', 'event_h']) parent, generate_series(0, 1) n;
