-- migrate:up
-- Registers one more execution of a known chain. Returns the tenant, or null for an unknown chain.
create function runward.run_adopt(p_workflow text, p_execution text, p_first text, p_kind text)
returns text
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp
set lock_timeout = '2s' as $$
declare
  origin runward.execution;
  r runward.run;
begin
  if p_kind not in ('continued', 'reset', 'retried') then
    raise exception 'an execution is continued, reset or retried' using errcode = '22023';
  end if;
  select * into origin from runward.execution
   where run_id = p_first and workflow_id = p_workflow and first_run_id = p_first;
  if not found then return null; end if;
  perform pg_advisory_xact_lock(runward.run_key(origin.tenant, p_first));
  if exists (select from runward.execution
              where run_id = p_execution and workflow_id = p_workflow) then
    return origin.tenant;
  end if;
  select * into strict r from runward.run where tenant = origin.tenant and run_id = p_first;
  if p_kind = 'reset' and r.content_gone_at is not null and r.state <> 'open' then
    raise exception 'retention has deleted what a reset needs' using errcode = '22023';
  end if;
  if p_kind = 'continued' and r.state <> 'open' then
    -- Registered all the same: what it asks is answered from what is recorded, or refused.
    null;
  elsif p_kind <> 'continued' then
    update runward.approval set state = 'void'
     where tenant = r.tenant and run_id = r.run_id and state = 'pending';
    update runward.run
       set epoch = epoch + case p_kind when 'reset' then 1 else 0 end,
           round = round + case p_kind when 'retried' then 1 else 0 end,
           state = 'open', closed_at = null, reason = '', result_digest = '',
           content_gone_at = null, steps_gone_at = null
     where tenant = r.tenant and run_id = r.run_id returning * into r;
  end if;
  insert into runward.execution values
    (p_execution, p_workflow, r.tenant, r.run_id, r.epoch, r.round);
  return r.tenant;
end $$;

-- Ends a run, unless it ended or a reset has taken it over. Returns the state it is in.
create function runward.run_close(p_tenant text, p_run text, p_round int, p_epoch int, p_state text,
                                  p_reason text, p_result text, p_record bytea)
returns text
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp
set lock_timeout = '2s' as $$
declare
  r runward.run;
begin
  perform pg_advisory_xact_lock(runward.run_key(p_tenant, p_run));
  select * into r from runward.run where tenant = p_tenant and run_id = p_run;
  if not found or (r.round, r.epoch) <> (p_round, p_epoch) then return r.state; end if;
  return runward.end_run(p_tenant, p_run, p_state, p_reason, p_result, p_record);
end $$;

-- Ends a step whose activity failed for good, by what its row proves: an attempt that is inside may
-- have acted (p_acted); without one, nothing did (p_idle). Returns the recorded outcome.
create function runward.step_resolve(p_tenant text, p_run text, p_round int, p_epoch int,
                                     p_step text, p_acted runward.ending, p_idle runward.ending,
                                     p_blobs bytea[], out state text, out outcome bytea)
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp
set lock_timeout = '2s' as $$
declare
  s runward.step;
  h runward.hold;
  e runward.ending;
begin
  if 'done' in (p_acted.state, p_idle.state) then
    raise exception 'resolving proves no success' using errcode = '22023';
  end if;
  perform pg_advisory_xact_lock(runward.run_key(p_tenant, p_run));
  select * into s from runward.step t where t.tenant = p_tenant and t.run_id = p_run
     and t.round = p_round and t.step = p_step and t.epoch = p_epoch;
  if s.outcome is not null then
    state := s.state; outcome := s.outcome;
    return;
  end if;
  e := p_idle;
  if s.state = 'open' then
    e := p_acted;
    select * into h from runward.hold t where t.tenant = p_tenant and t.nonce = s.nonce;
    -- What it cannot lock, the charge waits for once more and then fails.
    perform runward.lock_buckets(array_fill(p_tenant, array[coalesce(cardinality(h.buckets), 0)]),
                                 h.buckets, clock_timestamp() + interval '2 s');
    perform runward.resolve_hold(p_tenant, s.nonce, 'F', null);
  end if;
  state := e.state; outcome := p_blobs[e.outcome];
  insert into runward.step as t
    (tenant, run_id, round, epoch, step, digest, kind, name, state, outcome, message, closed_at)
  values (p_tenant, p_run, p_round, p_epoch, p_step, '', '', '', e.state, outcome, e.message,
          clock_timestamp())
  on conflict (tenant, run_id, round, step, epoch) do update
     set state = excluded.state, outcome = excluded.outcome, message = excluded.message,
         lost = false, closed_at = excluded.closed_at;
  update runward.approval t set state = 'void' where t.tenant = p_tenant and t.run_id = p_run
     and t.round = p_round and t.epoch = p_epoch and t.step = p_step and t.state = 'pending';
  perform runward.record(p_tenant, 'outcome', p_run, p_step, p_blobs[e.record]);
end $$;

-- Charges holds whose time is over: without proof that nothing was billed, they are not given back.
-- Those that somebody else has locked are left to the next call.
create function runward.forfeit_expired(p_max int) returns int
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp as $$
declare
  until timestamptz := clock_timestamp() + interval '2 s';
  h runward.hold;
  expired runward.hold[] := array(
    select t from runward.hold t where t.state = 'H' and t.expires_at < clock_timestamp()
     order by t.expires_at limit p_max);
  stuck bigint[];
  ours bigint[];
  moved int := 0;
begin
  stuck := runward.lock_keys(
    array(select runward.run_key(u.tenant, u.run_id) from unnest(expired) u), until);
  expired := array(
    select u from unnest(expired) u where runward.run_key(u.tenant, u.run_id) <> all(stuck));
  ours := (runward.lock_buckets(
    array(select u.tenant from unnest(expired) u cross join unnest(u.buckets) with ordinality b
           order by u.tenant, u.nonce, b.ordinality),
    array(select b.b from unnest(expired) u cross join unnest(u.buckets) with ordinality b
           order by u.tenant, u.nonce, b.ordinality), until)).ids;
  foreach h in array expired loop
    -- Settled while we waited? Then resolve_hold changes nothing.
    if h.buckets <@ ours and exists (select from runward.hold t where t.tenant = h.tenant
                                        and t.nonce = h.nonce and t.state = 'H') then
      moved := moved + runward.resolve_hold(h.tenant, h.nonce, 'F', null)::int;
    end if;
  end loop;
  return moved;
end $$;

-- migrate:down
drop function runward.forfeit_expired(int);
drop function runward.step_resolve(text, text, int, int, text, runward.ending, runward.ending,
                                   bytea[]);
drop function runward.run_close(text, text, int, int, text, text, text, bytea);
drop function runward.run_adopt(text, text, text, text);
