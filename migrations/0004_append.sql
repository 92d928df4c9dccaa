-- append: the only thing that inserts events, draws positions, or touches rows of the present.
--
-- One function, one round trip, one transaction. Arrays belong together by their first letter:
--   h_*  plain heartbeats, at most one a session
--   r_*  sessions whose lazy check_at is to be moved on
--   c_*  commands that make transitions, at most one a user
--   t_*  what commands do to live sessions without opening or ending them
--   l_*  lapses of sessions among the commands' events, with the deadline that was decided
--   e_*  the commands' events, in order; e_exact is set where the event does not happen at intake
--   d_*  details of events, apart from the log
--   k_*  keys of guards
--   y_*  at most one event of the system itself, relayed from another aggregate
-- `*_command` counts commands from 1, `*_event` events from 1; ages are microseconds between the
-- moment the server took the command in and the moment this call was sent.
--
-- Verdicts, a letter each, heartbeats first, then commands, then y:
--   a accepted   c conflict: load and decide again   s the session's name is another's
--   e the session's name was used and is over        k the guard's key is known
--
-- Positions are drawn as one block and dealt by rank, so that the caller can compute them:
-- heartbeat i has first_position + i - 1, then come the events, then y; a service_resumed stands
-- just before first_position. What is refused leaves a hole.
create function append(
    p_batch uuid,
    h_session uuid[], h_age_us bigint[], h_idle_ms integer[], h_lease_ms integer[],
    h_active boolean[],
    r_session uuid[],
    c_user bigint[], c_expected bigint[], c_age_us bigint[], c_valid_until timestamptz[],
    c_last_event integer[], c_sequence bigint[], c_status text[], c_since_intake boolean[],
    c_since timestamptz[], c_shown_intake boolean[], c_shown_since timestamptz[],
    c_floor timestamptz[], c_changed timestamptz[], c_live integer[], c_invisible boolean[],
    c_check_at timestamptz[], c_state jsonb[], c_own boolean[],
    t_command integer[], t_session uuid[], t_beat boolean[], t_idle_ms integer[],
    t_active boolean[],
    l_command integer[], l_session uuid[], l_deadline timestamptz[], l_lease boolean[],
    e_command integer[], e_type text[], e_session uuid[], e_sequence bigint[], e_from text[],
    e_to text[], e_reason text[], e_actor bigint[], e_word bigint[], e_idle_ms integer[],
    e_exact timestamptz[], e_data jsonb[],
    d_command integer[], d_event integer[], d_detail jsonb[],
    k_command integer[], k_event integer[], k_followers integer[], k_key text[],
    y_type text[], y_source text[], y_number bigint[], y_actor bigint[], y_data jsonb[],
    out first_position bigint, out head bigint, out head_found bigint, out recorded_at timestamptz,
    out taken_at timestamptz, out resumed_from timestamptz, out verdicts text,
    out replayed boolean)
language plpgsql volatile security definer
set search_path from current
-- Plans made while the tables were still empty must not keep their sequential scans.
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    beats     constant integer := coalesce(cardinality(h_session), 0);
    commands  constant integer := coalesce(cardinality(c_user), 0);
    events    constant integer := coalesce(cardinality(e_command), 0);
    systems   constant integer := coalesce(cardinality(y_type), 0);
    us        constant interval := interval '1 microsecond';
    ms        constant interval := interval '1 millisecond';
    v_newest  timestamptz;
    v_clock   timestamptz;  -- what the server's clock shows
    v_now     timestamptz;
    v_taken   timestamptz;
    v_quiet   timestamptz;  -- since here no silence: the deadline is a plain sum
    v_first   bigint;       -- position of heartbeat 1
    v_from    timestamptz;
    v_beaten  bigint[];
    v_ok      boolean[];
    v_prev    timestamptz[];
    v_letters text := '';
begin
    -- Held to the commit: positions are drawn, committed and visible in one order.
    perform pg_advisory_xact_lock(append_lock_key());

    select b.first_position, b.head, b.head_found, b.recorded_at, b.taken_at, b.resumed_from,
           b.verdicts
      into first_position, head, head_found, recorded_at, taken_at, resumed_from, verdicts
      from batch b where b.batch_id = p_batch;
    replayed := found;
    if replayed then
        return;
    end if;

    select b.recorded_at, b.head into v_newest, head_found
      from batch b order by b.batch_no desc limit 1;
    head_found := coalesce(head_found, 0);
    v_clock := log_clock();
    v_now := greatest(v_clock, v_newest);
    -- The wait is subtracted: where the server's clock was set back, its instants are not ours.
    v_taken := v_now - greatest(v_clock - intake_clock(), interval '0');

    v_from := case when v_now - v_newest > interval '5 seconds' then v_newest end;
    select min(p), max(p) into first_position, head
      from (select nextval('log_pos') p
              from generate_series(1, beats + events + systems + (v_from is not null)::integer)) d;
    head := coalesce(head, head_found);
    first_position := coalesce(first_position, head + 1);
    v_first := first_position;

    -- Nobody appended for a while: that was our outage and is nobody's time-out.
    if v_from is not null then
        insert into event (position, class, type, occurred_at, recorded_at, data)
        values (v_first, 'T', 'service_resumed', v_now, v_now,
                jsonb_build_object('from', rfc3339(v_from), 'to', rfc3339(v_now)));
        insert into silence (position, from_at, to_at) values (v_first, v_from, v_now);
        v_first := v_first + 1;
    end if;
    v_quiet := coalesce((select s.to_at from silence s order by s.to_at desc limit 1), '-infinity');

    -- Heartbeats go first: whoever was taken in before the deadline wins over the time-out.
    if beats > 0 then
        with beat as (
            update live_session l
               set last_seen = greatest(l.last_seen, h.at),
                   idle_ms = case when l.last_seen <= h.at then h.idle_ms else l.idle_ms end,
                   lease_ms = h.lease_ms,
                   -- Unchanged, and so HOT, unless the lease was shortened meanwhile.
                   check_at = case when h.lease_ms < l.lease_ms
                                   then least(l.check_at, h.at + h.lease_ms * ms)
                                   else l.check_at end
              -- `offset 0`: each instant is computed once.
              from (select u.*, v_taken - u.age_us * us as at
                      from unnest(h_session, h_age_us, h_idle_ms, h_lease_ms, h_active)
                           with ordinality u (session_id, age_us, idle_ms, lease_ms, active, i)
                    offset 0) h
             where l.session_id = h.session_id
               and l.active = h.active
               and h.at < case when l.last_seen >= v_quiet then l.last_seen + l.lease_ms * ms
                          else lease_end(l.last_seen, l.lease_ms) end
            returning h.i, l.user_no, l.session_id, h.at, h.idle_ms
        ), logged as (
            insert into event_h (position, class, type, user_no, session_id, occurred_at,
                                 recorded_at, idle_ms)
            select v_first + b.i - 1, 'H', 'heartbeat', b.user_no, b.session_id, b.at, v_now,
                   b.idle_ms
              from beat b
        )
        select array_agg(b.i) into v_beaten from beat b;
        if coalesce(cardinality(v_beaten), 0) = beats then
            v_letters := repeat('a', beats);
        else
            select string_agg(case when b.i is null then 'c' else 'a' end, '' order by n.i)
              into v_letters
              from generate_series(1::bigint, beats) n (i)
              left join unnest(v_beaten) b (i) on b.i = n.i;
        end if;
    end if;

    if coalesce(cardinality(r_session), 0) > 0 then
        update live_session l
           set check_at = least(lease_end(l.last_seen, l.lease_ms),
                                case when l.active then lease_end(l.last_seen, l.away_after_ms) end)
         where l.session_id = any (r_session);
    end if;

    if commands > 0 then
        with verdict as (
            select c.i, coalesce(s.changed_at, '-infinity') as prev,
                   case
                       when coalesce(s.position, 0) <> c.expected or v_now >= c.valid_until
                           or c.i = any (lapsed.wrong) or c.i = any (early.wrong) then 'c'
                       when c.i = any (opened.taken) then 's'
                       when c.i = any (opened.ended) then 'e'
                       when c.i = any (keyed.known) then 'k'
                       else 'a'
                   end as letter
              from unnest(c_user, c_expected, c_valid_until) with ordinality
                       c (user_no, expected, valid_until, i)
              left join current_status s on s.user_no = c.user_no
             cross join (select array_agg(l.command::bigint) from unnest(l_command, l_session,
                             l_deadline, l_lease) l (command, session_id, deadline, lease)
                          left join live_session v on v.session_id = l.session_id
                          where v.session_id is null or l.deadline > v_now
                             or l.deadline <> case when l.lease
                                    then lease_end(v.last_seen, v.lease_ms)
                                    else lease_end(v.last_seen, v.away_after_ms) end
                        ) lapsed (wrong)
             -- A claim's end is part of the state that was expected: its time is left to check.
             cross join (select array_agg(e.command::bigint)
                           from unnest(e_command, e_type, e_exact) e (command, type, exact)
                          where e.type = 'claim_expired' and e.exact > v_now
                        ) early (wrong)
             -- A live one of the user's own is one that this very command has found over.
             cross join (select array_agg(e.command::bigint)
                                    filter (where v.user_no <> c_user[e.command]),
                                array_agg(e.command::bigint)
                                    filter (where v.user_no = c_user[e.command]
                                                or x.session_id is not null)
                           from unnest(e_command, e_type, e_session) e (command, type, session_id)
                           left join live_session v on v.session_id = e.session_id
                           left join ended_session x on x.session_id = e.session_id
                          where e.type = 'session_opened'
                        ) opened (taken, ended)
             cross join (select array_agg(k.command::bigint)
                           from unnest(k_command, k_key) k (command, key)
                           join guard_key g on g.user_no = c_user[k.command] and g.key = k.key
                        ) keyed (known)
        )
        select array_agg(v.letter = 'a' order by v.i), array_agg(v.prev order by v.i),
               v_letters || string_agg(v.letter, '' order by v.i)
          into v_ok, v_prev, v_letters
          from verdict v;

        if coalesce(cardinality(t_command), 0) > 0 then
            -- A lapse that a command records before its heartbeat noted the activity before it.
            update current_status s
               set last_activity = greatest(s.last_activity, live.last_activity)
              from (select c_user[b.command] as user_no
                      from unnest(e_command, e_type) with ordinality b (command, type, i)
                     where b.type = 'heartbeat' and e_command[b.i::integer - 1] = b.command
                       and v_ok[b.command]) c
             cross join lateral (select max(l.last_seen - l.idle_ms * ms) as last_activity
                                   from live_session l where l.user_no = c.user_no) live
             where s.user_no = c.user_no;

            update live_session l
               set last_seen = case when t.beat then greatest(l.last_seen, t.at)
                                    else l.last_seen end,
                   idle_ms = case when t.beat and l.last_seen <= t.at and t.idle_ms >= 0
                                  then t.idle_ms else l.idle_ms end,
                   active = coalesce(t.active, l.active),
                   check_at = least(l.check_at, case when t.beat and t.active
                                                     then t.at + l.away_after_ms * ms end)
              from (select u.session_id, u.beat, u.idle_ms, u.active,
                           v_taken - c_age_us[u.command] * us as at
                      from unnest(t_command, t_session, t_beat, t_idle_ms, t_active)
                               u (command, session_id, beat, idle_ms, active)
                     where v_ok[u.command]) t
             where l.session_id = t.session_id;
        end if;

        -- The present of users seen before. last_seen is taken from the sessions before they go.
        update current_status s
           set status = c.status::presence_status,
               since = case when c.since_intake then c.at else coalesce(c.since, s.since) end,
               shown_since = case when c.shown_intake then c.at
                                  else coalesce(c.shown_since, s.shown_since) end,
               sequence = c.sequence,
               position = v_first + beats + c.last_event - 1,
               changed_at = case when c.own then coalesce(c.changed, c.at) else s.changed_at end,
               own_since = coalesce(s.own_since,
                                    case when c.own then coalesce(c.changed, c.at) end),
               last_seen = greatest(s.last_seen, live.last_seen, c.imported_until),
               last_activity = greatest(s.last_activity, live.last_activity, c.imported_until),
               live_sessions = c.live, invisible = c.invisible, check_at = c.check_at,
               state_version = 1, state = c.state
          from (select u.*, greatest(v_taken - u.age_us * us, u.floor, v_prev[u.i]) as at,
                       case when not u.own then u.since end as imported_until
                  from unnest(c_user, c_expected, c_age_us, c_last_event, c_sequence, c_status,
                           c_since_intake, c_since, c_shown_intake, c_shown_since, c_floor,
                           c_changed, c_live, c_invisible, c_check_at, c_state, c_own)
                           with ordinality
                       u (user_no, expected, age_us, last_event, sequence, status, since_intake,
                          since, shown_intake, shown_since, floor, changed, live, invisible,
                          check_at, state, own, i)
                 where u.expected > 0 and u.last_event is not null and v_ok[u.i]) c
          left join lateral (select max(l.last_seen) as last_seen,
                                    max(l.last_seen - l.idle_ms * ms) as last_activity
                               from live_session l where l.user_no = c.user_no) live on true
         where s.user_no = c.user_no;

        -- And of users never seen before. Their first own event happens at intake.
        if 0 = any (c_expected) then
            insert into current_status (user_no, status, since, shown_since, sequence, position,
                changed_at, own_since, last_seen, last_activity, live_sessions, invisible,
                check_at, state_version, state)
            select c.user_no, c.status::presence_status, coalesce(c.since, c.at),
                   coalesce(c.shown_since, c.at), c.sequence, v_first + beats + c.last_event - 1,
                   case when c.own then c.at end, case when c.own then c.at end,
                   case when not c.own then c.since end, case when not c.own then c.since end,
                   c.live, c.invisible, c.check_at, 1, c.state
              from (select u.*, greatest(v_taken - u.age_us * us, u.floor) as at
                      from unnest(c_user, c_expected, c_age_us, c_last_event, c_sequence, c_status,
                               c_since, c_shown_since, c_floor, c_live, c_invisible, c_check_at,
                               c_state, c_own) with ordinality
                           u (user_no, expected, age_us, last_event, sequence, status, since,
                              shown_since, floor, live, invisible, check_at, state, own, i)
                     where u.expected = 0 and u.last_event is not null and v_ok[u.i]) c;
        end if;

        with logged as (
            insert into event (position, class, type, user_no, sequence, session_id, occurred_at,
                               recorded_at, idle_ms, from_status, to_status, reason, actor_no,
                               word_no, data)
            select v_first + beats + e.i - 1,
                   (case e.type when 'heartbeat' then 'H' else 'T' end)::"char",
                   e.type::event_type, c_user[e.command], e.sequence, e.session_id,
                   case when e.exact is not null then e.exact
                        when e.type = 'heartbeat' then v_taken - c_age_us[e.command] * us
                        else greatest(v_taken - c_age_us[e.command] * us, c_floor[e.command],
                                      v_prev[e.command]) end,
                   v_now, e.idle_ms, e.from_status::presence_status, e.to_status::presence_status,
                   e.reason::end_reason, e.actor, e.word, e.data
              from unnest(e_command, e_type, e_session, e_sequence, e_from, e_to, e_reason, e_actor,
                          e_word, e_idle_ms, e_exact, e_data) with ordinality
                   e (command, type, session_id, sequence, from_status, to_status, reason, actor,
                      word, idle_ms, exact, data, i)
             where v_ok[e.command]
            returning position, type, user_no, session_id, occurred_at, reason, data
        ), opened as (
            insert into live_session (session_id, user_no, opened_at, last_seen, check_at,
                opened_position, lease_ms, idle_ms, away_after_ms, kind, active)
            select g.session_id, g.user_no, g.occurred_at, g.occurred_at,
                   g.occurred_at + least((g.data ->> 'lease_ms')::integer,
                                         (g.data ->> 'away_after_ms')::integer) * ms,
                   g.position, (g.data ->> 'lease_ms')::integer, (g.data ->> 'idle_ms')::integer,
                   (g.data ->> 'away_after_ms')::integer, (g.data ->> 'kind')::device_kind,
                   (g.data ->> 'active')::boolean
              from logged g
             where g.type = 'session_opened' and not g.data ? 'imported'
        ), gone as (
            delete from live_session l
             where l.session_id = any (array(
                select g.session_id from logged g
                 where g.type in ('session_closed', 'session_expired')))
        )
        insert into ended_session (session_id, user_no, ended_at, position, reason)
        select g.session_id, g.user_no, g.occurred_at, g.position, g.reason
          from logged g where g.type in ('session_closed', 'session_expired');

        if cardinality(d_command) > 0 then
            insert into detail (position, user_no, detail)
            select v_first + beats + d.event - 1, c_user[d.command], d.detail
              from unnest(d_command, d_event, d_detail) d (command, event, detail)
             where v_ok[d.command];
        end if;

        if cardinality(k_command) > 0 then
            insert into guard_key (user_no, key, position, followers, recorded_at)
            select c_user[k.command], k.key, v_first + beats + k.event - 1, k.followers, v_now
              from unnest(k_command, k_event, k_followers, k_key) k (command, event, followers, key)
             where v_ok[k.command];
        end if;
    end if;

    -- Relayed once, whoever relays it how often.
    if systems > 0 then
        with fresh as (
            insert into relay as r (source, number)
            select y.source, y.number from unnest(y_source, y_number) y (source, number)
            on conflict (source) do update set number = excluded.number
                where r.number < excluded.number
            returning r.source
        )
        insert into event (position, class, type, occurred_at, recorded_at, actor_no, data)
        select v_first + beats + events + y.i - 1, 'T', y.type::event_type, v_now, v_now, y.actor,
               y.data
          from unnest(y_type, y_source, y_actor, y_data) with ordinality
                   y (type, source, actor, data, i)
          join fresh using (source);
        v_letters := v_letters || repeat('a', systems);
    end if;

    insert into batch (batch_id, recorded_at, taken_at, first_position, head, head_found,
                       resumed_from, verdicts)
    values (p_batch, v_now, v_taken, v_first, head, head_found, v_from, v_letters);
    first_position := v_first;
    recorded_at := v_now;
    taken_at := v_taken;
    resumed_from := v_from;
    verdicts := v_letters;
end $$;
