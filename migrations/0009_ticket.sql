-- What live feeds need: tickets for browsers, a secret that all nodes share, and who is invisible.

-- A browser cannot send `Authorization` with a WebSocket, and a token must not stand in a URL: so
-- it asks for a ticket first, and offers that. One row a ticket; whoever uses it deletes it, so
-- that it is good once, on any node. The hash alone is kept: who reads the table can use none.
create table ticket (
    ticket_hash bytea primary key constraint ticket_hash_length check (length(ticket_hash) = 32),
    identity    jsonb not null, -- what the token said of its bearer
    expires_at  timestamptz not null
);
create index ticket_expires_at on ticket (expires_at);

-- Makes one, and forgets those that nobody used in time.
create function make_ticket(p_hash bytea, p_identity jsonb, p_life_ms integer)
returns timestamptz language plpgsql volatile security definer set search_path from current as $$
declare
    v_expires_at timestamptz := log_clock() + p_life_ms * interval '1 millisecond';
begin
    delete from ticket where expires_at < log_clock();
    insert into ticket (ticket_hash, identity, expires_at)
    values (p_hash, p_identity, v_expires_at);
    return v_expires_at;
end $$;

-- Uses one: of two who try at one time one deletes the row and the other finds none.
create function use_ticket(p_hash bytea)
returns jsonb language sql volatile security definer set search_path from current as $$
    with used as (delete from ticket where ticket_hash = p_hash returning identity, expires_at)
    select identity from used where expires_at >= log_clock()
$$;

-- What resume tokens are signed with, the same on all nodes. Two random UUIDs, hashed to 32 bytes.
create table live_secret (
    secret bytea not null constraint live_secret_length check (length(secret) = 32)
);
create unique index live_secret_one on live_secret ((true));
insert into live_secret
select sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'));

-- Whoever starts to follow the log has to know who is invisible at that position; few are.
create index current_status_invisible on current_status (user_no) where invisible;

revoke all on function make_ticket from public;
revoke all on function use_ticket from public;
grant execute on function make_ticket, use_ticket to rollcall_api;
grant select on live_secret to rollcall_api;
