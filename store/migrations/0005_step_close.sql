-- migrate:up
-- A step after its attempt. Fenced by epoch and nonce: the first final outcome stays.

create type runward.ending as (
  tenant text, run_id text, step text, epoch int, round int, nonce text, attempt int, state text,
  outcome int, record int, resolution text, actual jsonb, head text, message text, grants text[],
  transcript jsonb, content int, closing jsonb,
  keys bigint[], touches bigint[]  -- filled in by step_close: what it locks; ids of buckets
);

-- Ends a run unless it has ended; its open requests become void. Returns the state it is in.
create function runward.end_run(p_tenant text, p_run text, p_state text, p_reason text,
                                p_result text, p_record bytea) returns text
language plpgsql as $$
declare
  found_state text;
begin
  update runward.run set state = p_state, reason = p_reason, result_digest = p_result,
         closed_at = clock_timestamp()
   where tenant = p_tenant and run_id = p_run and state = 'open' returning state into found_state;
  if not found then
    select state into found_state from runward.run where tenant = p_tenant and run_id = p_run;
    return found_state;
  end if;
  update runward.approval set state = 'void'
   where tenant = p_tenant and run_id = p_run and state = 'pending';
  perform runward.record(p_tenant, 'run_ended', p_run, '', p_record);
  return found_state;
end $$;

create function runward.step_close_one(c runward.ending, p_blobs bytea[], p_first int,
                                       out outcome bytea, out late boolean,
                                       out charges runward.charge[])
language plpgsql as $$
declare
  s runward.step;
  h runward.hold;
  admitted boolean;  -- this attempt has a hold, resolved or not
  fresh boolean;     -- this close has not been here before
  mine boolean;
  given bytea := p_blobs[p_first + c.outcome];
  leaf bytea := p_blobs[p_first + c.record];
begin
  select * into s from runward.step t where t.tenant = c.tenant and t.run_id = c.run_id
     and t.round = c.round and t.step = c.step and t.epoch = c.epoch;
  select * into h from runward.hold t where t.tenant = c.tenant and t.nonce = c.nonce
     and t.run_id = c.run_id and t.round = c.round and t.epoch = c.epoch and t.step = c.step;
  admitted := found;
  if admitted then
    charges := runward.end_hold(h, case c.resolution
      when 'settle' then 'S' when 'release' then 'R' when 'forfeit' then 'F' end, c.actual);
  end if;
  fresh := charges is not null;
  late := false;
  if s.outcome is not null then
    outcome := s.outcome;
    -- The same close once more is an ack that was lost, not a second outcome.
    late := not (s.nonce = c.nonce and given = s.outcome and c.state is not null);
    if late then
      perform runward.record(c.tenant, 'outcome', c.run_id, c.step, leaf, true);
    end if;
    return;
  end if;
  mine := coalesce(s.state = 'open' and s.nonce = c.nonce and admitted, false);
  if c.state is null then
    if mine then
      update runward.step t set state = 'idle', lost = false where t.tenant = c.tenant
         and t.run_id = c.run_id and t.round = c.round and t.step = c.step and t.epoch = c.epoch;
    elsif s.state = 'idle' and s.nonce = c.nonce and not fresh then
      return;
    end if;
    late := not mine;
    perform runward.record(c.tenant, 'outcome', c.run_id, c.step, leaf, late);
    return;
  end if;
  -- What ends without having been admitted may only say so, and only where nobody is inside.
  if not mine and not (not admitted and c.state <> 'done'
                       and (s.state is null or s.state = 'idle' or s.lost)) then
    late := true;
    perform runward.record(c.tenant, 'outcome', c.run_id, c.step, leaf, true);
    return;
  end if;
  insert into runward.step as t
    (tenant, run_id, round, epoch, step, digest, kind, name, state, nonce, attempt, outcome, head,
     message, grants, closed_at)
  values (c.tenant, c.run_id, c.round, c.epoch, c.step, '', '', '', c.state, c.nonce, c.attempt,
          given, c.head, c.message, c.grants, clock_timestamp())
  on conflict (tenant, run_id, round, step, epoch) do update
     set state = c.state, nonce = c.nonce, attempt = c.attempt, lost = false, outcome = given,
         head = c.head, message = c.message, grants = c.grants, closed_at = clock_timestamp();
  if not mine or s.lost then
    update runward.approval t set state = 'void' where t.tenant = c.tenant and t.run_id = c.run_id
       and t.step = c.step and t.round = c.round and t.epoch = c.epoch and t.state = 'pending';
  end if;
  if c.content is not null then
    perform runward.use_content(c.tenant, c.run_id, c.message, p_blobs[p_first + c.content]);
  end if;
  if c.transcript <> '[]' then
    insert into runward.transcript (tenant, run_id, head, previous, digest, content, prefix_bytes)
    select c.tenant, c.run_id, t.head, t.previous, t.digest, p_blobs[p_first + t.content],
           t.prefix_bytes
      from jsonb_to_recordset(c.transcript)
        t(head text, previous text, digest text, content int, prefix_bytes bigint)
    on conflict do nothing;
  end if;
  perform runward.record(c.tenant, 'outcome', c.run_id, c.step, leaf);
  outcome := given;
  if c.closing is not null then
    perform runward.end_run(c.tenant, c.run_id, c.closing ->> 'state', c.closing ->> 'reason',
                            c.closing ->> 'result_digest',
                            p_blobs[p_first + (c.closing ->> 'record')::int]);
  end if;
end $$;

-- Returns the keys to lock for a close: its run's, and that of content which is new.
create function runward.close_keys(c runward.ending) returns bigint[] language plpgsql stable as $$
declare
  keys bigint[] := array[runward.run_key(c.tenant, c.run_id)];
begin
  if c.content is not null and not exists (
    select from runward.content t where t.tenant = c.tenant and t.digest = c.message) then
    keys := keys || runward.run_key(c.tenant, 'content:' || c.message);
  end if;
  return keys;
end $$;

-- One commit for a whole batch, as step_open. `late` is null for an item whose locks were not free.
create function runward.step_close(p_items jsonb, p_blobs bytea[], p_firsts int[], p_wait_ms int)
returns table (outcome bytea, late boolean)
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp as $$
declare
  until timestamptz := clock_timestamp() + make_interval(secs => p_wait_ms / 1000.0);
  endings runward.ending[] := array(
    select c from jsonb_populate_recordset(null::runward.ending, p_items) c);
  c runward.ending;
  keys bigint[] := '{}';
  stuck bigint[];
  tenants text[] := '{}';
  ids bigint[] := '{}';
  charges runward.charge[] := '{}';
  one record;
begin
  perform runward.may_wait(until);
  for n in 1 .. cardinality(endings) loop
    c := endings[n];
    c.keys := runward.close_keys(c);
    endings[n] := c;
    keys := keys || c.keys;
  end loop;
  stuck := runward.lock_keys(keys, until);
  for n in 1 .. cardinality(endings) loop
    c := endings[n];
    continue when c.keys && stuck;
    select h.buckets into c.touches from runward.hold h
     where h.tenant = c.tenant and h.nonce = c.nonce and h.run_id = c.run_id;
    continue when not found;
    endings[n] := c;
    tenants := tenants || array_fill(c.tenant, array[cardinality(c.touches)]);
    ids := ids || c.touches;
  end loop;
  ids := (runward.lock_buckets(tenants, ids, until)).ids;
  for n in 1 .. cardinality(endings) loop
    c := endings[n];
    if c.keys && stuck or not coalesce(c.touches <@ ids, true) then
      outcome := null; late := null;
    else
      one := runward.step_close_one(c, p_blobs, p_firsts[n]);
      outcome := one.outcome; late := one.late; charges := charges || one.charges;
    end if;
    return next;
  end loop;
  perform runward.write_charges(charges);
end $$;

-- migrate:down
drop function runward.step_close(jsonb, bytea[], int[], int);
drop function runward.close_keys(runward.ending);
drop function runward.step_close_one(runward.ending, bytea[], int);
drop function runward.end_run(text, text, text, text, text, bytea);
drop type runward.ending;
