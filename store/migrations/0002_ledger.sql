-- migrate:up
-- Locks are taken in one order everywhere, or batches would deadlock: first keys (advisory, sorted),
-- then buckets (by id). A key stands for a run and everything that is the run's (steps, holds,
-- approvals, transcript), or for a row that does not exist yet.
--
-- A batch waits for all its locks together until one deadline. What stays locked is left out and
-- said, so that the rest of the batch goes on.

create function runward.run_key(p_tenant text, p_run text) returns bigint
language sql immutable as $$
  select hashtextextended(p_tenant || E'\x1f' || p_run, 7041)
$$;

-- Lets the next lock wait until then; returns whether there is time left. What is locked without a
-- try before (a row that nobody but an operator locks) fails the batch after what is left.
create function runward.may_wait(p_until timestamptz) returns boolean language plpgsql as $$
declare
  ms int := floor(extract(epoch from p_until - clock_timestamp()) * 1000);
begin
  perform set_config('lock_timeout', greatest(ms, 1)::text, true);
  return ms > 0;
end $$;

-- Returns the keys that stayed locked.
create function runward.lock_keys(p_keys bigint[], p_until timestamptz) returns bigint[]
language plpgsql as $$
declare
  k bigint;
  stuck bigint[] := '{}';
begin
  for k in select distinct u from unnest(p_keys) u order by u loop
    if pg_try_advisory_xact_lock(k) then
      null;
    elsif runward.may_wait(p_until) then
      begin
        perform pg_advisory_xact_lock(k);
      exception when lock_not_available then
        stuck := stuck || k;
      end;
    else
      stuck := stuck || k;
    end if;
  end loop;
  return stuck;
end $$;

-- Returns the buckets that are ours now.
create function runward.lock_buckets(p_tenants text[], p_ids bigint[], p_until timestamptz,
                                     out tenants text[], out ids bigint[])
language plpgsql as $$
declare
  k record;
begin
  tenants := '{}'; ids := '{}';
  if coalesce(cardinality(p_ids), 0) = 0 then return; end if;
  -- Row by row: no plan can then choose to read the whole table.
  for k in select distinct u.tenant, u.id from unnest(p_tenants, p_ids) u(tenant, id)
           order by u.id loop
    perform from runward.bucket b where b.tenant = k.tenant and b.id = k.id for update skip locked;
    if not found then
      continue when not runward.may_wait(p_until);
      begin
        perform from runward.bucket b where b.tenant = k.tenant and b.id = k.id for update;
      exception when lock_not_available then
        continue;
      end;
    end if;
    tenants := tenants || k.tenant;
    ids := ids || k.id;
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

-- Returns the ids of these buckets in their order, null for one that does not exist yet.
create function runward.bucket_ids(p_tenant text, p_buckets jsonb, p_now timestamptz)
returns bigint[] language plpgsql stable as $$
begin
  if p_buckets = '[]' then return '{}'; end if;
  return array(
    select (select b.id from runward.bucket b
             where b.tenant = p_tenant and b.scope = x.scope and b.scope_id = x.scope_id
               and b.dimension = x.dimension and b.period = x.period
               and b.window_start = runward.window_start(x.period, p_now))
      from rows from (jsonb_to_recordset(p_buckets)
             as (scope text, scope_id text, dimension text, period text)) with ordinality
             x(scope, scope_id, dimension, period, n)
     order by x.n);
end $$;

-- Returns the keys under which these buckets may be created.
create function runward.bucket_keys(p_tenant text, p_buckets jsonb) returns bigint[]
language sql immutable as $$
  select array_agg(runward.run_key(p_tenant, concat_ws(E'\x1f', 'bucket', b.scope, b.scope_id,
                                                       b.dimension, b.period)))
    from jsonb_to_recordset(p_buckets) b(scope text, scope_id text, dimension text, period text)
$$;

-- Creates those that do not exist yet. The caller holds their keys.
create function runward.create_buckets(p_tenant text, p_buckets jsonb, p_now timestamptz)
returns void language sql as $$
  insert into runward.bucket
    (tenant, scope, scope_id, dimension, period, window_start, window_end, cap)
  select p_tenant, b.scope, b.scope_id, b.dimension, b.period,
         runward.window_start(b.period, p_now), runward.window_end(b.period, p_now), b.cap
    from jsonb_to_recordset(p_buckets)
      b(scope text, scope_id text, dimension text, period text, cap bigint)
  on conflict do nothing
$$;

-- The buckets that a batch has locked, and what it has reserved in each but not yet written.
create type runward.ledger as (tenants text[], ids bigint[], reserved bigint[]);

-- Writes each bucket once. No plan may choose to read the whole table, which grows after the plan.
create function runward.write_reserved(inout l runward.ledger)
language plpgsql set enable_seqscan = off as $$
begin
  if l.reserved <> array_fill(0, array[cardinality(l.ids)])::bigint[] then
    update runward.bucket b set held = b.held + u.reserved
      from unnest(l.tenants, l.ids, l.reserved) u(tenant, id, reserved)
     where b.tenant = u.tenant and b.id = u.id and u.reserved > 0;
    l.reserved := array_fill(0, array[cardinality(l.ids)]);
  end if;
end $$;

-- Takes the amounts from every bucket at once, or from none; then `short` says where it falls short.
-- `p_ids` are the ids of the buckets in their order, all of them locked.
create function runward.reserve(p_tenant text, p_buckets jsonb, p_ids bigint[],
                                inout l runward.ledger, out short jsonb, out dimensions text[],
                                out amounts bigint[])
language plpgsql as $$
declare
  b record;
  r runward.bucket;
  room numeric;
  held numeric;
  contended boolean;
begin
  dimensions := '{}'; amounts := '{}';
  if p_buckets = '[]' then return; end if;
  for b in
    select x.* from rows from (jsonb_to_recordset(p_buckets)
             as (dimension text, period text, cap bigint, amount bigint)) with ordinality
             x(dimension, period, cap, amount, n)
     order by x.n
  loop
    if b.amount is null or b.amount < 0 or b.cap is null then
      raise exception 'a bad amount' using errcode = '22003';
    end if;
    if p_ids[b.n] = any(p_ids[: b.n - 1]) then
      raise exception 'a bucket twice' using errcode = '22023';
    end if;
    select * into strict r from runward.bucket k where k.tenant = p_tenant and k.id = p_ids[b.n];
    if r.cap <> b.cap then
      update runward.bucket k set cap = b.cap where k.tenant = p_tenant and k.id = r.id;
    end if;
    -- numeric: three counters and an amount may pass the range of bigint together
    held := r.held::numeric + l.reserved[array_position(l.ids, r.id)];
    room := b.cap - held - r.settled - r.overrun;
    if room < b.amount then
      contended := room + held >= b.amount;
      -- An exhausted bucket says more than a contended one; otherwise the first one speaks.
      if short is null or (not contended and (short ->> 'contended')::boolean) then
        short := jsonb_build_object('a', 'short', 'bucket', b.n - 1,
          'available', greatest(room, 0), 'contended', contended,
          'window_end', case when b.period <> 'run' then r.window_end end);
      end if;
    end if;
    dimensions := dimensions || b.dimension; amounts := amounts || b.amount;
  end loop;
  if short is not null then return; end if;
  for n in 1 .. cardinality(amounts) loop
    l.reserved[array_position(l.ids, p_ids[n])] :=
      l.reserved[array_position(l.ids, p_ids[n])] + amounts[n];
  end loop;
end $$;

-- What the buckets of a hold that has ended are to be changed by.
create type runward.charge as (tenant text, id bigint, held bigint, settled bigint, overrun bigint);

-- H -> S, R or F; F -> S when usage arrives late; every other transition changes nothing and returns
-- null. The caller holds the locks of the run and of the hold's buckets, and writes the charges.
create function runward.end_hold(h runward.hold, p_state text, p_actual jsonb)
returns runward.charge[] language plpgsql as $$
declare
  charge bigint;
  used bigint[] := '{}';
  charges runward.charge[] := '{}';
begin
  if p_state is null or p_state not in ('S', 'R', 'F') then
    raise exception 'a hold ends in S, R or F' using errcode = '22023';
  end if;
  if h.state is null or not (h.state = 'H' or (h.state = 'F' and p_state = 'S')) then
    return null;
  end if;
  for n in 1 .. cardinality(h.buckets) loop
    charge := case p_state when 'S' then (p_actual ->> h.dimensions[n])::bigint
                           when 'F' then h.amounts[n] else 0 end;
    if charge is null or charge < 0 then
      raise exception 'a bad actual amount' using errcode = '22003';
    end if;
    used := used || charge;
    charges := charges || row(
      h.tenant, h.buckets[n],
      case when h.state = 'H' then -h.amounts[n] else 0 end,
      case when h.state = 'F' then -h.amounts[n] else 0 end + least(charge, h.amounts[n]),
      greatest(charge - h.amounts[n], 0))::runward.charge;
  end loop;
  update runward.hold t set state = p_state, actuals = used,
         resolved_at = clock_timestamp()
   where t.tenant = h.tenant and t.nonce = h.nonce;
  return charges;
end $$;

-- Writes each bucket once.
create function runward.write_charges(p_charges runward.charge[]) returns void
language plpgsql set enable_seqscan = off as $$
begin
  if coalesce(cardinality(p_charges), 0) = 0 then return; end if;
  update runward.bucket b
     set held = b.held + c.held, settled = b.settled + c.settled,
         -- It stops at the top of its range: a charge must never fail to be recorded.
         overrun = least(b.overrun + c.overrun, 4611686018427387904)
    from (select u.tenant, u.id, sum(u.held) as held, sum(u.settled) as settled,
                 sum(u.overrun) as overrun
            from unnest(p_charges) u group by u.tenant, u.id) c
   where b.tenant = c.tenant and b.id = c.id;
end $$;

-- Ends one hold and writes what it charges; as end_hold. Returns whether it moved.
create function runward.resolve_hold(p_tenant text, p_nonce text, p_state text, p_actual jsonb)
returns boolean language plpgsql as $$
declare
  h runward.hold;
  charges runward.charge[];
begin
  select * into h from runward.hold where tenant = p_tenant and nonce = p_nonce;
  charges := runward.end_hold(h, p_state, p_actual);
  perform runward.write_charges(charges);
  return charges is not null;
end $$;

create function runward.record(p_tenant text, p_kind text, p_run text, p_step text, p_leaf bytea,
                               p_late boolean default false) returns void
language plpgsql as $$
begin
  if p_leaf is not null and length(p_leaf) > 0 then
    insert into runward.audit_record (tenant, kind, run_id, step, leaf, late)
    values (p_tenant, p_kind, p_run, p_step, p_leaf, p_late);
  end if;
end $$;

-- migrate:down
drop function runward.record(text, text, text, text, bytea, boolean);
drop function runward.resolve_hold(text, text, text, jsonb);
drop function runward.write_charges(runward.charge[]);
drop function runward.end_hold(runward.hold, text, jsonb);
drop type runward.charge;
drop function runward.reserve(text, jsonb, bigint[], runward.ledger);
drop function runward.write_reserved(runward.ledger);
drop type runward.ledger;
drop function runward.create_buckets(text, jsonb, timestamptz);
drop function runward.bucket_keys(text, jsonb);
drop function runward.bucket_ids(text, jsonb, timestamptz);
drop function runward.window_end(text, timestamptz);
drop function runward.window_start(text, timestamptz);
drop function runward.lock_buckets(text[], bigint[], timestamptz);
drop function runward.lock_keys(bigint[], timestamptz);
drop function runward.may_wait(timestamptz);
drop function runward.run_key(text, text);
