-- migrate:up
-- A step before it runs. The order of the decisions is the contract; see step_open_one.

create type runward.draft as (
  tenant text, run_id text, step text, epoch int, round int, kind text, name text, digest text,
  workflow_id text, execution_run_id text, attempt int, nonce text, idempotent boolean,
  on_unknown text, arguments text, parent jsonb, opening jsonb, verdict text, reason text,
  approval_id text, approver_role text, approval_ttl_s int, execution_ttl_s int, buckets jsonb,
  hold_ttl_s int, intent int,  -- indexes into the leaves, 0-based within the item
  -- Filled in by step_open: what it locks for this draft.
  keys bigint[],  -- of its run, and of rows that do not exist yet
  ids bigint[],   -- of its buckets in their order
  touches bigint[]  -- ids of every bucket that it may change
);

create function runward.refused(p_code text, p_reason text) returns jsonb language sql immutable as $$
  select jsonb_build_object('a', 'refused', 'code', p_code, 'reason', p_reason)
$$;

create function runward.settled(p_state text, p_reason text) returns jsonb
language sql immutable as $$
  select jsonb_build_object('a', 'settled', 'state', p_state, 'reason', p_reason)
$$;

create function runward.asked(a runward.approval) returns jsonb language sql stable as $$
  select jsonb_build_object('a', 'asked', 'id', a.id, 'digest', a.digest, 'kind', a.kind,
                            'title', a.title, 'expires_at', a.expires_at)
$$;

-- Returns the keys to lock for a draft: its run's, and those of rows that it may have to create.
create function runward.open_keys(d runward.draft) returns bigint[] language plpgsql stable as $$
declare
  o jsonb := d.opening;
  keys bigint[] := array[runward.run_key(d.tenant, d.run_id)];
begin
  if array_position(d.ids, null) is not null then
    keys := keys || runward.bucket_keys(d.tenant, d.buckets);
  end if;
  if o is null then return keys; end if;
  keys := keys || runward.run_key(d.tenant, 'jti:' || (o ->> 'jti'))
               || runward.run_key(d.workflow_id, d.execution_run_id);
  if not exists (select from runward.policy p
                  where p.tenant = d.tenant and p.hash = o ->> 'policy') then
    keys := keys || runward.run_key(d.tenant, 'policy:' || (o ->> 'policy'));
  end if;
  if not exists (select from runward.agent_snapshot p
                  where p.tenant = d.tenant and p.hash = o ->> 'agent_digest') then
    keys := keys || runward.run_key(d.tenant, 'agent:' || (o ->> 'agent_digest'));
  end if;
  return keys;
end $$;

-- Opens the run of a first step, once. Returns null, or a refusal.
create function runward.open_run(d runward.draft, p_leaves bytea[], p_first int) returns jsonb
language plpgsql as $$
declare
  o jsonb := d.opening;
  known runward.run;
  place runward.execution;
begin
  select * into known from runward.run where tenant = d.tenant and run_id = d.run_id;
  if found then
    if known.jti <> o ->> 'jti' then
      return runward.refused('ticket', 'the run was opened by another ticket');
    end if;
    return null;
  end if;
  if exists (select from runward.run where tenant = d.tenant and jti = o ->> 'jti') then
    return runward.refused('ticket', 'the ticket opened another run');
  end if;
  if exists (select from runward.issuer where kid = o ->> 'kid' and revoked_at is not null) then
    return runward.refused('ticket', 'its issuer was revoked');
  end if;
  select * into place from runward.execution
   where run_id = d.execution_run_id and workflow_id = d.workflow_id;
  if found then
    return runward.refused('ticket', 'the execution belongs to another run');
  end if;
  insert into runward.policy (tenant, hash, body)
  values (d.tenant, o ->> 'policy', p_leaves[p_first + (o ->> 'policy_body')::int])
  on conflict do nothing;
  insert into runward.agent_snapshot (tenant, hash, body)
  values (d.tenant, o ->> 'agent_digest', p_leaves[p_first + (o ->> 'agent_snapshot')::int])
  on conflict do nothing;
  insert into runward.execution values
    (d.execution_run_id, d.workflow_id, d.tenant, d.run_id, d.epoch, d.round);
  insert into runward.run (tenant, run_id, workflow_id, user_id, roles, agent, agent_digest, policy,
                           session, request_digest, kid, jti, epoch, round)
  values (d.tenant, d.run_id, d.workflow_id, o ->> 'user',
          array(select jsonb_array_elements_text(o -> 'roles')), o ->> 'agent',
          o ->> 'agent_digest', o ->> 'policy', o ->> 'session', o ->> 'request_digest',
          o ->> 'kid', o ->> 'jti', d.epoch, d.round);
  perform runward.record(d.tenant, 'run_started', d.run_id, d.step,
                         p_leaves[p_first + (o ->> 'record')::int]);
  return null;
end $$;

-- Returns whether recorded outcomes lead to this step.
create function runward.lineage_holds(d runward.draft) returns boolean language plpgsql as $$
declare
  origin runward.step;
  asked jsonb := d.parent -> 'messages';
  made int;
begin
  if coalesce(d.parent ->> 'model', '') = '' then
    if d.kind <> 'model' then return false; end if;
    -- The worker compared the request; here: nothing else may have begun this conversation.
    return not exists (
      select from runward.step s where s.tenant = d.tenant and s.run_id = d.run_id
         and s.round = d.round and s.epoch = d.epoch and s.kind = 'model' and s.state = 'done'
         and s.step <> d.step);
  end if;
  select * into origin from runward.step s
   where s.tenant = d.tenant and s.run_id = d.run_id and s.round = d.round
     and s.step = d.parent ->> 'model' and s.epoch <= d.epoch
     and s.kind = 'model' and s.state = 'done'
   order by s.epoch desc limit 1;
  if not found then return false; end if;
  if d.kind <> 'model' then
    return coalesce(origin.grants[(d.parent ->> 'index')::int + 1] = d.digest, false);
  end if;
  if origin.head is distinct from d.parent ->> 'head'
     or jsonb_array_length(asked) <> cardinality(origin.grants) then
    return false;
  end if;
  select count(*) into made
    from jsonb_array_elements(asked) with ordinality m(pair, n)
    cross join lateral (
      select s.message, s.digest from runward.step s
       where s.tenant = d.tenant and s.run_id = d.run_id and s.round = d.round
         and s.step = m.pair ->> 0 and s.epoch <= d.epoch
         and s.state in ('done', 'denied', 'failed', 'unknown')
       order by s.epoch desc limit 1) t
   where t.message = m.pair ->> 1
     -- The n-th message answers the n-th call; '' was settled before the store saw its digest.
     and t.digest in (origin.grants[m.n], '');
  return made = cardinality(origin.grants)
     and made = (select count(distinct e ->> 0) from jsonb_array_elements(asked) e);
end $$;

-- Returns the request that this draft has to go by: the one it names, else the newest that asked
-- the same; one that is void, spent or missing gives way to a new one.
create function runward.request_for(d runward.draft, p_kind text, p_user text, p_now timestamptz,
                                    p_spent_holds boolean) returns runward.approval
language plpgsql as $$
declare
  a runward.approval;
begin
  if d.approval_id is not null then
    select * into a from runward.approval
     where tenant = d.tenant and id = d.approval_id and run_id = d.run_id and round = d.round
       and step = d.step and digest = d.digest and kind = p_kind;
  end if;
  if a.id is null or a.state = 'void' or (a.state = 'consumed' and not p_spent_holds) then
    select * into a from runward.approval
     where tenant = d.tenant and run_id = d.run_id and round = d.round and epoch = d.epoch
       and step = d.step and digest = d.digest and kind = p_kind and state <> 'void'
     order by created_at desc limit 1;
  end if;
  if a.id is null or (a.state = 'consumed' and not p_spent_holds) then
    insert into runward.approval
      (tenant, id, run_id, round, epoch, step, workflow_id, kind, tool, title, arguments, digest,
       requester, approver_role, expires_at, execution_ttl_s, created_at)
    values
      (d.tenant, gen_random_uuid()::text, d.run_id, d.round, d.epoch, d.step, d.workflow_id, p_kind,
       d.name,
       case p_kind when 'unknown' then d.name || ': its last attempt may have had its effect'
                   else coalesce(nullif(d.reason, ''), d.name) end,
       d.arguments, d.digest, p_user, d.approver_role,
       p_now + make_interval(secs => d.approval_ttl_s), d.execution_ttl_s, p_now)
    returning * into a;
  end if;
  if (a.state = 'pending' and p_now > a.expires_at)
     or (a.state = 'approved'
         and p_now > a.decided_at + make_interval(secs => a.execution_ttl_s)) then
    update runward.approval set state = 'expired' where tenant = a.tenant and id = a.id
    returning * into a;
  end if;
  return a;
end $$;

create function runward.step_idle(d runward.draft, p_lost boolean) returns void
language plpgsql as $$
begin
  insert into runward.step as s
    (tenant, run_id, round, epoch, step, digest, kind, name, state, idempotent, lost)
  values (d.tenant, d.run_id, d.round, d.epoch, d.step, d.digest, d.kind, d.name,
          case when p_lost then 'open' else 'idle' end, d.idempotent, p_lost)
  on conflict (tenant, run_id, round, step, epoch) do update set lost = s.lost or p_lost
  where p_lost and not s.lost;
end $$;

-- migrate:down
drop function runward.step_idle(runward.draft, boolean);
drop function runward.request_for(runward.draft, text, text, timestamptz, boolean);
drop function runward.lineage_holds(runward.draft);
drop function runward.open_run(runward.draft, bytea[], int);
drop function runward.open_keys(runward.draft);
drop function runward.asked(runward.approval);
drop function runward.settled(text, text);
drop function runward.refused(text, text);
drop type runward.draft;
