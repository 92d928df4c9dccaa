-- What tells others of the log: webhooks, rules, egress. All of it follows the log behind its back;
-- nothing here is touched by whoever writes.

-- Endpoints are event-sourced in `events` (0005), as the policy is. No type of the log's events
-- fits them, so they are not relayed into it: who changed which and when is in `events.metadata`.
-- This is how postgres-es' PostgresViewRepository shows them; the fold of `events` is the truth.
create table webhook_view (
    view_id text primary key,
    version bigint check (version >= 0) not null,
    payload json not null
);

-- The secrets, apart from what is kept for ever and from what auditors read. In clear, as each
-- delivery is signed with one: whoever reads this table can sign. The former one signs as well for
-- a while after a rotation.
create table webhook_secret (
    webhook_id   uuid primary key,
    secret       text not null,
    former       text,
    former_until timestamptz
);

-- How far the log has been looked through for an endpoint: the checkpoint. Whoever has this row's
-- lock takes the next page.
create table webhook_cursor (
    webhook_id uuid primary key,
    position   bigint not null
);

-- What an endpoint is to be told, was told lately, or could not be told. A page of them is written
-- together with the checkpoint. How many may be pending is bounded; the rest waits in the log.
create table webhook_delivery (
    webhook_id   uuid not null references webhook_cursor on delete cascade,
    position     bigint not null,
    rule         text not null default '', -- a rule's name, where a rule wanted it told
    user_no      bigint not null,          -- 0: an event of the system; in order per user
    state        text not null default 'pending',
    attempts     integer not null default 0,
    next_at      timestamptz not null,     -- pending: not before
    leased_by    uuid,                     -- the node that is at it
    leased_until timestamptz,              -- ... until then, by the machine's clock
    http_status  integer,                  -- of the latest answer
    error        text,                     -- why the latest attempt failed; never the answer's text
    settled_at   timestamptz,
    primary key (webhook_id, position, rule),
    constraint webhook_delivery_state check (state in ('pending', 'delivered', 'dead'))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
-- Finds whether something earlier of the same user is still to be told.
create index webhook_delivery_pending on webhook_delivery (webhook_id, user_no, position, rule)
    where state = 'pending';
create index webhook_delivery_next on webhook_delivery (webhook_id, position)
    where state = 'pending';
create index webhook_delivery_settled on webhook_delivery (settled_at) where state <> 'pending';

grant select, insert, update, delete on webhook_view, webhook_secret, webhook_cursor,
    webhook_delivery to rollcall_api;

-- Sets a checkpoint back, never forward: what stands above it is read from the log again.
create function replay_webhook(p_webhook uuid, p_after bigint) returns bigint
language plpgsql volatile security definer set search_path from current as $$
declare
    v_position bigint;
begin
    -- First, and held to the commit: whoever reads the log for this endpoint waits or has written.
    update webhook_cursor set position = least(position, p_after) where webhook_id = p_webhook
    returning position into v_position;
    -- Else one of these could be told before an earlier one that comes back from the log.
    delete from webhook_delivery
     where webhook_id = p_webhook and position > p_after and rule = '';
    return v_position;
end $$;
revoke all on function replay_webhook from public;
grant execute on function replay_webhook to rollcall_api;

-- Rules of the policy: what shall happen once a status has lasted. One row: the checkpoint, and the
-- rules on which `rule_due` stands.
create table rule_cursor (
    only_row boolean primary key default true constraint rule_cursor_one check (only_row),
    position bigint not null default 0,
    rules    jsonb not null default '[]'
);
insert into rule_cursor default values;

-- Users whose present status a rule waits for, from the event with which that status began. Gone
-- when the rule has acted, or the status is another: so a rule acts once a stretch of a status.
create table rule_due (
    rule         text not null,
    user_no      bigint not null,
    position     bigint not null,      -- where the status began
    since        timestamptz not null, -- when
    due_at       timestamptz not null,
    leased_until timestamptz,          -- a node is at it, by the machine's clock
    primary key (rule, user_no)
);
create index rule_due_due_at on rule_due (due_at);
create index rule_due_user_no on rule_due (user_no);

grant select, update on rule_cursor to rollcall_api;
grant select, insert, update, delete on rule_due to rollcall_api;

-- How far the log has been handed on to other systems (NATS), and which node is at it.
create table egress (
    target       text primary key,
    position     bigint not null default 0,
    leased_by    uuid,
    leased_until timestamptz -- by the machine's clock
);
grant select, insert, update on egress to rollcall_api;
