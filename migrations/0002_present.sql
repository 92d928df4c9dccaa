-- The present: who is here. Written by `append` alone, in the transaction of the events that
-- caused it, so the log and the present cannot disagree.

-- One row a user: the effective status, and the snapshot from which the next command is decided.
create table current_status (
    user_no       bigint primary key,
    status        presence_status not null, -- as of the last transition
    since         timestamptz not null,     -- when it began
    shown_since   timestamptz not null,     -- when the status that others are shown began
    sequence      bigint not null,          -- count of transitions
    position      bigint not null,          -- of the last transition: what a command must expect
    changed_at    timestamptz,              -- occurred_at of the last own transition
    own_since     timestamptz,              -- occurred_at of the first own (not imported) one
    last_seen     timestamptz,              -- as of the last transition; live_session knows better
    last_activity timestamptz,              -- likewise, less the idle time
    live_sessions integer not null,
    invisible     boolean not null,
    check_at      timestamptz,              -- earliest end of a claim
    state_version smallint not null,
    state         jsonb not null            -- claims, what others see while invisible, imports
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_analyze_scale_factor = 0.05);
create index current_status_check_at on current_status (check_at) where check_at is not null;

-- One row an open session. A heartbeat changes no indexed column (HOT), hence the low fillfactor.
-- `check_at` is lazy: never later than the next deadline, moved on by a recheck only.
create table live_session (
    session_id      uuid primary key,
    user_no         bigint not null,
    opened_at       timestamptz not null,
    last_seen       timestamptz not null,
    check_at        timestamptz not null,
    opened_position bigint not null,
    lease_ms        integer not null,
    idle_ms         integer not null,
    away_after_ms   integer,              -- interaction-driven sessions only
    kind            device_kind not null,
    active          boolean not null
) with (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);
create index live_session_user_no on live_session (user_no);
create index live_session_check_at on live_session (check_at);

-- One row a session that is over: so that its name is never used twice, and its client hears why.
create table ended_session (
    session_id uuid primary key,
    user_no    bigint not null,
    ended_at   timestamptz not null,
    position   bigint not null,
    reason     end_reason not null
);

-- A guard's key and the event that answered it, kept for 24 h.
create table guard_key (
    user_no     bigint not null,
    key         text not null constraint guard_key_length check (length(key) between 1 and 200),
    position    bigint not null,   -- of the action_allowed or action_refused
    followers   integer not null,  -- how many events the same command made after it
    recorded_at timestamptz not null,
    primary key (user_no, key)
);
create index guard_key_recorded_at on guard_key (recorded_at);

-- Tokens that are no longer to be believed: by `jti`, else by the token's hash.
create table revocation (
    token_key  text primary key constraint revocation_key_length check (length(token_key) <= 256),
    expires_at timestamptz not null,
    revoked_at timestamptz not null default clock_timestamp()
);
create index revocation_revoked_at on revocation (revoked_at);
