-- migrate:up
-- The rule of the verdict that asks: who looks at a waiting call sees it before anybody decided.
alter table runward.approval add column rule text not null default '';
alter type runward.draft add attribute rule text;  -- null from a worker of the release before

-- As it was (0003), but for the rule. Of an unknown effect no verdict asks: its tool declares that.
create or replace function runward.request_for(d runward.draft, p_kind text, p_user text,
                                    p_now timestamptz, p_spent_holds boolean) returns runward.approval
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
       requester, approver_role, expires_at, execution_ttl_s, created_at, rule)
    values
      (d.tenant, gen_random_uuid()::text, d.run_id, d.round, d.epoch, d.step, d.workflow_id, p_kind,
       d.name,
       case p_kind when 'unknown' then d.name || ': its last attempt may have had its effect'
                   else coalesce(nullif(d.reason, ''), d.name) end,
       d.arguments, d.digest, p_user, d.approver_role,
       p_now + make_interval(secs => d.approval_ttl_s), d.execution_ttl_s, p_now,
       case p_kind when 'call' then coalesce(d.rule, '') else '' end)
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

-- migrate:down
create or replace function runward.request_for(d runward.draft, p_kind text, p_user text,
                                    p_now timestamptz, p_spent_holds boolean) returns runward.approval
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

alter type runward.draft drop attribute rule;
alter table runward.approval drop column rule;
