-- migrate:up
-- A step after its attempt. Fenced by epoch and nonce: the first final outcome stays.

create type runward.ending as (
  tenant text, run_id text, step text, epoch int, round int, nonce text, attempt int, state text,
  outcome int, record int, resolution text, actual jsonb, head text, message text, grants text[],
  transcript jsonb, content int, closing jsonb
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
                                       out outcome bytea, out late boolean)
language plpgsql as $$
declare
  s runward.step;
  admitted boolean;  -- this attempt has a hold, resolved or not
  fresh boolean;     -- this close has not been here before
  mine boolean;
  given bytea := p_blobs[p_first + c.outcome];
  leaf bytea := p_blobs[p_first + c.record];
begin
  select * into s from runward.step t where t.tenant = c.tenant and t.run_id = c.run_id
     and t.round = c.round and t.step = c.step and t.epoch = c.epoch;
  admitted := exists (select from runward.hold h where h.tenant = c.tenant and h.nonce = c.nonce
    and h.run_id = c.run_id and h.round = c.round and h.epoch = c.epoch and h.step = c.step);
  fresh := admitted and runward.resolve_hold(c.tenant, c.nonce, case c.resolution
    when 'settle' then 'S' when 'release' then 'R' when 'forfeit' then 'F' end, c.actual);
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
  insert into runward.transcript (tenant, run_id, head, previous, digest, content, prefix_bytes)
  select c.tenant, c.run_id, t.head, t.previous, t.digest, p_blobs[p_first + t.content],
         t.prefix_bytes
    from jsonb_to_recordset(c.transcript)
      t(head text, previous text, digest text, content int, prefix_bytes bigint)
  on conflict do nothing;
  perform runward.record(c.tenant, 'outcome', c.run_id, c.step, leaf);
  outcome := given;
  if c.closing is not null then
    perform runward.end_run(c.tenant, c.run_id, c.closing ->> 'state', c.closing ->> 'reason',
                            c.closing ->> 'result_digest',
                            p_blobs[p_first + (c.closing ->> 'record')::int]);
  end if;
end $$;

create function runward.step_close(p_items jsonb, p_blobs bytea[], p_firsts int[], p_wait_ms int)
returns table (outcome bytea, late boolean)
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp as $$
declare
  i record;
  tenants text[];
  ids bigint[];
begin
  perform set_config('lock_timeout', p_wait_ms::text, true);
  perform runward.lock_keys(array(
    select runward.run_key(e ->> 'tenant', e ->> 'run_id') from jsonb_array_elements(p_items) e));
  insert into runward.content (tenant, digest, content)
  select distinct on (1, 2) e.value ->> 'tenant', e.value ->> 'message',
         p_blobs[p_firsts[e.ordinality] + (e.value ->> 'content')::int]
    from jsonb_array_elements(p_items) with ordinality e
   where e.value ? 'content' and not exists (
     select from runward.content t where t.tenant = e.value ->> 'tenant'
        and t.digest = e.value ->> 'message')
   order by 1, 2 on conflict do nothing;
  select array_agg(h.tenant), array_agg(u.id) into tenants, ids
    from jsonb_array_elements(p_items) e
    join runward.hold h on h.tenant = e ->> 'tenant' and h.nonce = e ->> 'nonce'
     and h.run_id = e ->> 'run_id'
   cross join unnest(h.buckets) u(id);
  perform runward.lock_buckets(tenants, ids);
  for i in select * from jsonb_array_elements(p_items) with ordinality e(item, n) order by n loop
    select o.outcome, o.late into outcome, late
      from runward.step_close_one(jsonb_populate_record(null::runward.ending, i.item), p_blobs,
                                  p_firsts[i.n]) o;
    return next;
  end loop;
end $$;

-- migrate:down
drop function runward.step_close(jsonb, bytea[], int[], int);
drop function runward.step_close_one(runward.ending, bytea[], int);
drop function runward.end_run(text, text, text, text, text, bytea);
drop type runward.ending;
