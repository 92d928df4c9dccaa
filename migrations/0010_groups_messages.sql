-- Groups, and what people and systems send each other. No part of the log: who belongs to a group
-- is what a service says of it now, and a message is gone once everybody has it.
-- Whoever erases a person finds all of it by number: membership.user_no, message.sender_no (a
-- message takes its deliveries with it), delivery.receiver_no, mailbox.receiver_no; what changed
-- of memberships is forgotten after an hour.

-- Who belongs to which group. A group exists by its members; it has no row of its own.
create table membership (
    group_name text not null
               constraint membership_group_shape check (group_name ~ '^[A-Za-z0-9._@:+|-]{1,128}$'),
    user_no    bigint not null,
    joined_at  timestamptz not null,
    primary key (group_name, user_no)
);
create index membership_user_no on membership (user_no, group_name);

-- What changed of it, kept for an hour: nodes keep sets of members in memory, and hear here which
-- of them to read again. Numbered like deliveries, under a lock held to the commit.
create sequence membership_change_number as bigint minvalue 1 cache 1;
create table membership_change (
    change_no  bigint primary key,
    group_name text not null,
    user_no    bigint not null,
    changed_at timestamptz not null
);
create function membership_lock_key() returns bigint
language sql stable set search_path from current as
    $$ select (x'7267'::bigint << 32) | current_schema()::regnamespace::oid::bigint $$;

-- Stored names are for ever.
create type message_kind as enum ('message', 'notification', 'broadcast', 'group');

-- What was sent, once, however many are to have it. The only place of its text.
create table message (
    message_id uuid primary key,   -- version 7, made by the node that took it in
    kind       message_kind not null,
    sender_no  bigint,             -- none: a system
    group_name text,               -- kind `group`: which
    title      text constraint message_title_length check (length(title) <= 256),
    body       text not null
               constraint message_body_length check (octet_length(body) between 1 and 16384),
    created_at timestamptz not null,
    keep_until timestamptz not null, -- acknowledged or not, it is forgotten then
    constraint message_group check ((kind = 'group') = (group_name is not null))
);
create index message_sender_no on message (sender_no) where sender_no is not null;
create index message_keep_until on message (keep_until);

-- Who is still to have it. `delivery_no` is drawn under a lock held to the commit, for the reason
-- for which positions are (see 0001): a node that follows `delivery_no > n` can never miss one,
-- and what one sender sent first has the lower number. Holes are possible and mean nothing.
create sequence delivery_number as bigint minvalue 1 cache 1;
create table delivery (
    delivery_no bigint primary key,
    message_id  uuid not null,
    receiver_no bigint,            -- none: whoever is live now, and no row of `mailbox`
    constraint delivery_message_receiver unique (message_id, receiver_no)
) with (autovacuum_vacuum_scale_factor = 0.05);
create index delivery_receiver_no on delivery (receiver_no, delivery_no)
    where receiver_no is not null;

-- How many wait for a receiver. Counted here since counting the rows themselves would cost a group
-- of thousands, of whom some have been away for days, millions of them under the lock.
create table mailbox (
    receiver_no bigint primary key,
    waiting     integer not null constraint mailbox_waiting check (waiting >= 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- The key of the mail lock: one a schema, another than the log's.
create function mail_lock_key() returns bigint language sql stable set search_path from current as
    $$ select (x'726d'::bigint << 32) | current_schema()::regnamespace::oid::bigint $$;

-- Whoever deletes a delivery need not know that somebody counts. Rows of mailboxes are locked in
-- one order everywhere, and after those of messages: so nobody waits for each other in a circle.
create function count_gone_deliveries() returns trigger language plpgsql
security definer set search_path from current as $$
begin
    perform from mailbox where receiver_no in (select receiver_no from gone)
        order by receiver_no for update;
    update mailbox set waiting = waiting - n
      from (select receiver_no, count(*)::integer n from gone group by receiver_no) less
     where mailbox.receiver_no = less.receiver_no;
    return null;
end $$;
create trigger delivery_counted after delete on delivery
    referencing old table as gone for each statement execute function count_gone_deliveries();

-- A message takes its deliveries with it. Not a foreign key: that would look the message up again
-- for each of a group's members.
create function drop_gone_messages() returns trigger language plpgsql
security definer set search_path from current as $$
begin
    delete from delivery using gone where delivery.message_id = gone.message_id;
    return null;
end $$;
create trigger message_dropped after delete on message
    referencing old table as gone for each statement execute function drop_gone_messages();

-- Sends: to `p_receiver`; to the members of `p_group`, and to those live whose token alone makes
-- them members, whom nobody can enumerate; or, as a broadcast, to whoever is live.
-- Who has `p_waiting_max` waiting already is left out and counted in `refused`; where that is
-- everybody, nothing is written. What waits for nobody is kept for `p_keep_live`.
create function post_message(p_id uuid, p_kind text, p_sender bigint, p_receiver bigint,
    p_group text, p_title text, p_body text, p_keep interval, p_keep_live interval,
    p_waiting_max integer, out delivered integer, out refused integer)
language plpgsql volatile security definer set search_path from current
-- Plans made while the tables were still empty must not keep their sequential scans.
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_asked integer := 0;
    v_now   timestamptz;
begin
    -- Held to the commit: numbers are drawn, committed and visible in one order.
    perform pg_advisory_xact_lock(mail_lock_key());
    v_now := log_clock();
    delivered := 0;
    if p_kind <> 'broadcast' then
        select count(*) into v_asked from membership where group_name = p_group;
        v_asked := v_asked + (p_receiver is not null)::integer;
        with receiver as (
                select user_no from membership where group_name = p_group
                union all
                select p_receiver where p_receiver is not null),
            taken as (
                insert into mailbox as box (receiver_no, waiting)
                select user_no, 1 from receiver order by user_no
                on conflict (receiver_no) do update set waiting = box.waiting + 1
                    where box.waiting < p_waiting_max
                returning receiver_no),
            made as (
                insert into delivery (delivery_no, message_id, receiver_no)
                select nextval('delivery_number'), p_id, receiver_no from taken
                returning 1)
        select count(*) into delivered from made;
    end if;
    refused := v_asked - delivered;
    if delivered = 0 and refused > 0 then
        return;
    end if;
    insert into message (message_id, kind, sender_no, group_name, title, body, created_at,
            keep_until)
    values (p_id, p_kind::message_kind, p_sender, p_group, p_title, p_body, v_now,
            v_now + case when delivered > 0 then p_keep else p_keep_live end);
    if p_kind in ('broadcast', 'group') then
        insert into delivery (delivery_no, message_id) values (nextval('delivery_number'), p_id);
    end if;
end $$;

-- A receiver has these. The message goes with its last receiver: its row is locked first, so that
-- of two who acknowledge at once the second one sees that nobody is left. One to a group stays
-- for nodes that have not read it yet, as a broadcast does.
create function acknowledge_messages(p_receiver bigint, p_messages uuid[], p_keep_live interval)
returns integer language plpgsql volatile security definer set search_path from current
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_count integer;
begin
    perform from message where message_id in (
            select message_id from delivery
             where message_id = any(p_messages) and receiver_no = p_receiver)
        order by message_id for update;
    delete from delivery where message_id = any(p_messages) and receiver_no = p_receiver;
    get diagnostics v_count = row_count;
    if v_count > 0 then
        delete from message m where message_id = any(p_messages) and kind <> 'group'
           and not exists (select from delivery d where d.message_id = m.message_id);
        update message m set keep_until = least(keep_until, created_at + p_keep_live)
         where message_id = any(p_messages) and kind = 'group'
           and not exists (select from delivery d
                where d.message_id = m.message_id and d.receiver_no is not null);
    end if;
    return v_count;
end $$;

-- Forgets what is over its time: at most so many messages and as many deliveries, since their
-- mailboxes stay locked until the commit, and whoever sends to one of them keeps everybody
-- waiting. True: there may be more. Whoever is being acknowledged is left for the next time.
create function forget_messages(p_limit integer)
returns boolean language plpgsql volatile security definer set search_path from current
set enable_seqscan = off
as $$
declare
    v_old   uuid[];
    v_count integer;
begin
    delete from membership_change where change_no in (
            select change_no from membership_change order by change_no limit p_limit)
       and changed_at < log_clock() - interval '1 hour';
    v_old := array(select message_id from message where keep_until <= log_clock()
        order by keep_until limit p_limit for update skip locked);
    delete from delivery where delivery_no in (
        select delivery_no from delivery where message_id = any(v_old) limit p_limit);
    get diagnostics v_count = row_count;
    if v_count < p_limit then
        delete from message where message_id = any(v_old);
    end if;
    return v_count = p_limit or cardinality(v_old) = p_limit;
end $$;

-- Joins a group. `refusal`: group_full, too_many_groups. Repeated, it answers the same.
create function join_group(p_group text, p_user bigint, p_members_max integer,
    p_groups_max integer, out joined_at timestamptz, out refusal text)
language plpgsql volatile security definer set search_path from current
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    -- Counts hold only where whoever else joins waits; so does the order of the changes.
    perform pg_advisory_xact_lock(membership_lock_key());
    select m.joined_at into joined_at from membership m
     where m.group_name = p_group and m.user_no = p_user;
    if found then
        return;
    end if;
    if (select count(*) from membership where group_name = p_group) >= p_members_max then
        refusal := 'group_full';
    elsif (select count(*) from membership where user_no = p_user) >= p_groups_max then
        refusal := 'too_many_groups';
    else
        joined_at := log_clock();
        insert into membership (group_name, user_no, joined_at)
        values (p_group, p_user, joined_at);
        insert into membership_change (change_no, group_name, user_no, changed_at)
        values (nextval('membership_change_number'), p_group, p_user, joined_at);
    end if;
end $$;

-- Leaves a group. False: there was no such member.
create function leave_group(p_group text, p_user bigint)
returns boolean language plpgsql volatile security definer set search_path from current
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    perform pg_advisory_xact_lock(membership_lock_key());
    delete from membership where group_name = p_group and user_no = p_user;
    if not found then
        return false;
    end if;
    insert into membership_change (change_no, group_name, user_no, changed_at)
    values (nextval('membership_change_number'), p_group, p_user, log_clock());
    return true;
end $$;

-- Auditors see who could see whom; what people wrote to each other is nobody's but theirs.
grant select on membership to rollcall_api, rollcall_auditor;
grant select on membership_change, message, delivery, mailbox to rollcall_api;
revoke all on function post_message, acknowledge_messages, forget_messages, join_group,
    leave_group from public;
revoke all on function count_gone_deliveries, drop_gone_messages from public;
grant execute on function post_message, acknowledge_messages, forget_messages, join_group,
    leave_group, mail_lock_key, membership_lock_key to rollcall_api;
