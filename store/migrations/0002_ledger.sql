-- migrate:up
-- Locks are taken in one order everywhere, or batches would deadlock: first the runs (advisory, by
-- key), then rows that are named by their content (sorted), then buckets (by id). What belongs to one
-- run (steps, holds, approvals, transcript) needs no lock of its own: its run's lock covers it.

create function runward.run_key(p_tenant text, p_run text) returns bigint
language sql immutable as $$
  select hashtextextended(p_tenant || E'\x1f' || p_run, 7041)
$$;

create function runward.lock_keys(p_keys bigint[]) returns void language plpgsql as $$
declare k bigint;
begin
  for k in select distinct u from unnest(p_keys) u order by u loop
    perform pg_advisory_xact_lock(k);
  end loop;
end $$;

create function runward.window_start(p_period text, p_now timestamptz) returns timestamptz
language sql immutable as $$
  select case p_period
    when 'run' then timestamptz '1970-01-01 00:00:00+00'
    else date_trunc(p_period, p_now at time zone 'UTC') at time zone 'UTC' end
$$;

create function runward.window_end(p_period text, p_now timestamptz) returns timestamptz
language sql immutable as $$
  select case p_period
    when 'run' then timestamptz '9999-01-01 00:00:00+00'
    else (date_trunc(p_period, p_now at time zone 'UTC') + ('1 ' || p_period)::interval)
         at time zone 'UTC' end
$$;

create function runward.lock_buckets(p_tenants text[], p_ids bigint[]) returns void
language plpgsql as $$
declare k record;
begin
  -- Row by row: no plan can then choose to read the whole table.
  for k in select distinct u.tenant, u.id from unnest(p_tenants, p_ids) u(tenant, id)
           order by u.id loop
    perform 1 from runward.bucket b where b.tenant = k.tenant and b.id = k.id for update;
  end loop;
end $$;

-- Creates and locks every bucket that the drafts want or that their dead attempts still hold.
create function runward.lock_open_buckets(p_items jsonb, p_now timestamptz) returns void
language plpgsql as $$
declare
  k record;
  found_id bigint;
  tenants text[] := '{}';
  ids bigint[] := '{}';
begin
  for k in
    select i.value ->> 'tenant' as tenant, b.scope, b.scope_id, b.dimension, b.period,
           max(b.cap) as cap
      from jsonb_array_elements(p_items) i,
           jsonb_to_recordset(i.value -> 'buckets')
             b(scope text, scope_id text, dimension text, period text, cap bigint)
     group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5
  loop
    select b.id into found_id from runward.bucket b
     where b.tenant = k.tenant and b.scope = k.scope and b.scope_id = k.scope_id
       and b.dimension = k.dimension and b.period = k.period
       and b.window_start = runward.window_start(k.period, p_now);
    if not found then
      insert into runward.bucket
        (tenant, scope, scope_id, dimension, period, window_start, window_end, cap)
      values (k.tenant, k.scope, k.scope_id, k.dimension, k.period,
              runward.window_start(k.period, p_now), runward.window_end(k.period, p_now), k.cap)
      on conflict do nothing;
      select b.id into strict found_id from runward.bucket b
       where b.tenant = k.tenant and b.scope = k.scope and b.scope_id = k.scope_id
         and b.dimension = k.dimension and b.period = k.period
         and b.window_start = runward.window_start(k.period, p_now);
    end if;
    tenants := tenants || k.tenant;
    ids := ids || found_id;
  end loop;
  for k in
    select h.tenant, u.id
      from jsonb_array_elements(p_items) i
      join runward.step s on s.tenant = i.value ->> 'tenant' and s.run_id = i.value ->> 'run_id'
       and s.round = (i.value ->> 'round')::int and s.step = i.value ->> 'step'
      join runward.hold h on h.tenant = s.tenant and h.nonce = s.nonce and h.state = 'H'
      cross join unnest(h.buckets) u(id)
     where s.state = 'open'
  loop
    tenants := tenants || k.tenant;
    ids := ids || k.id;
  end loop;
  perform runward.lock_buckets(tenants, ids);
end $$;

-- Takes the amounts from every bucket at once, or from none. Returns null, or where it falls short.
create function runward.reserve(p_tenant text, p_buckets jsonb, p_now timestamptz,
                                out short jsonb, out ids bigint[], out dimensions text[],
                                out amounts bigint[])
language plpgsql as $$
declare
  b record;
  r runward.bucket;
  room numeric;
  contended boolean;
begin
  ids := '{}'; dimensions := '{}'; amounts := '{}';
  for b in
    select x.ordinality - 1 as index, e.*
      from jsonb_array_elements(p_buckets) with ordinality x,
           jsonb_to_record(x.value) e(scope text, scope_id text, dimension text, period text,
                                      cap bigint, amount bigint)
     order by x.ordinality
  loop
    if b.amount is null or b.amount < 0 or b.cap is null then
      raise exception 'a bad amount' using errcode = '22003';
    end if;
    select * into strict r from runward.bucket k
     where k.tenant = p_tenant and k.scope = b.scope and k.scope_id = b.scope_id
       and k.dimension = b.dimension and k.period = b.period
       and k.window_start = runward.window_start(b.period, p_now);
    if r.id = any(ids) then
      raise exception 'a bucket twice' using errcode = '22023';
    end if;
    if r.cap <> b.cap then
      update runward.bucket set cap = b.cap where tenant = p_tenant and id = r.id;
    end if;
    -- numeric: three counters and an amount may pass the range of bigint together
    room := b.cap::numeric - r.held - r.settled - r.overrun;
    if room < b.amount then
      contended := room + r.held >= b.amount;
      -- An exhausted bucket says more than a contended one; otherwise the first one speaks.
      if short is null or (not contended and (short ->> 'contended')::boolean) then
        short := jsonb_build_object('a', 'short', 'bucket', b.index,
          'available', greatest(room, 0), 'contended', contended,
          'window_end', case when b.period <> 'run' then r.window_end end);
      end if;
    end if;
    ids := ids || r.id; dimensions := dimensions || b.dimension; amounts := amounts || b.amount;
  end loop;
  if short is not null then return; end if;
  for b in select * from unnest(ids, amounts) u(id, amount) loop
    update runward.bucket k set held = k.held + b.amount where k.tenant = p_tenant and k.id = b.id;
  end loop;
end $$;

-- H -> S, R or F; F -> S when usage arrives late; every other transition changes nothing.
-- The caller holds the locks of the run and of the hold's buckets. Returns whether it moved.
create function runward.resolve_hold(p_tenant text, p_nonce text, p_state text, p_actual jsonb)
returns boolean language plpgsql as $$
declare
  h runward.hold;
  charge bigint;
  charges bigint[] := '{}';
begin
  if p_state is null or p_state not in ('S', 'R', 'F') then
    raise exception 'a hold ends in S, R or F' using errcode = '22023';
  end if;
  select * into h from runward.hold where tenant = p_tenant and nonce = p_nonce;
  if not found or not (h.state = 'H' or (h.state = 'F' and p_state = 'S')) then
    return false;
  end if;
  for n in 1 .. cardinality(h.buckets) loop
    charge := case p_state when 'S' then (p_actual ->> h.dimensions[n])::bigint
                           when 'F' then h.amounts[n] else 0 end;
    if charge is null or charge < 0 then
      raise exception 'a bad actual amount' using errcode = '22003';
    end if;
    charges := charges || charge;
    update runward.bucket b
       set held = b.held - case when h.state = 'H' then h.amounts[n] else 0 end,
           settled = b.settled - case when h.state = 'F' then h.amounts[n] else 0 end
                     + least(charge, h.amounts[n]),
           -- It stops at the top of its range: a charge must never fail to be recorded.
           overrun = least(b.overrun::numeric + greatest(charge - h.amounts[n], 0),
                           4611686018427387904)
     where b.tenant = p_tenant and b.id = h.buckets[n];
  end loop;
  update runward.hold set state = p_state, actuals = charges, resolved_at = clock_timestamp()
   where tenant = p_tenant and nonce = p_nonce;
  return true;
end $$;

create function runward.record(p_tenant text, p_kind text, p_run text, p_step text, p_leaf bytea,
                               p_late boolean default false) returns void
language sql as $$
  insert into runward.audit_record (tenant, kind, run_id, step, leaf, late)
  select p_tenant, p_kind, p_run, p_step, p_leaf, p_late
   where p_leaf is not null and length(p_leaf) > 0
$$;

-- migrate:down
drop function runward.record(text, text, text, text, bytea, boolean);
drop function runward.resolve_hold(text, text, text, jsonb);
drop function runward.reserve(text, jsonb, timestamptz);
drop function runward.lock_open_buckets(jsonb, timestamptz);
drop function runward.lock_buckets(text[], bigint[]);
drop function runward.window_end(text, timestamptz);
drop function runward.window_start(text, timestamptz);
drop function runward.lock_keys(bigint[]);
drop function runward.run_key(text, text);
