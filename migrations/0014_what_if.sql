-- What history would have been under another policy: named, made once from the log, kept beside
-- the views until somebody drops it. `projections/src/what_if/` makes it, in slices of users.

create table what_if (
    name         text primary key
                 constraint what_if_name check (name ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    patch        jsonb not null,       -- what of the policy is otherwise
    upto         bigint not null,      -- of the events at or below it
    upto_at      timestamptz not null, -- ... and as of then
    last_user    bigint not null,
    state        text not null default 'building',
    done_to_user bigint not null default 0, -- users at or below it are complete
    position     bigint not null default 0, -- how far the next slice of users has come
    -- Who is at it. Whoever has not said so for a while is taken for gone.
    worker       uuid,
    moved_at     timestamptz not null default clock_timestamp(),
    made_at      timestamptz not null default clock_timestamp(),
    constraint what_if_state check (state in ('building', 'done', 'dropping'))
);

-- An interval of one user's other history. Open (`to_at` null): it held at `upto_at`.
create table what_if_span (
    name    text not null,
    user_no bigint not null,
    from_at timestamptz not null,
    to_at   timestamptz,
    status  presence_status not null,
    primary key (name, user_no, from_at)
);

-- The comparison, summed up as slices are completed: asking for it reads days and users, not spans.
-- Time in each status but offline, a UTC day: what was, and what would have been.
create table what_if_day (
    name      text not null,
    day       date not null,
    status    presence_status not null,
    before_us bigint not null,
    after_us  bigint not null,
    primary key (name, day, status)
);

-- Of each user: since when it is known, how long the two differ, changes of status, and flaps (a
-- status that lasted less than a minute).
create table what_if_user (
    name           text not null,
    user_no        bigint not null,
    known_us       bigint not null,
    changed_us     bigint not null,
    before_changes bigint not null,
    after_changes  bigint not null,
    before_flaps   bigint not null,
    after_flaps    bigint not null,
    primary key (name, user_no)
);
create index what_if_user_changed on what_if_user (name, changed_us desc);

grant select, insert, update, delete on what_if, what_if_span, what_if_day, what_if_user
    to rollcall_api;
grant select on what_if, what_if_span, what_if_day, what_if_user to rollcall_auditor;
