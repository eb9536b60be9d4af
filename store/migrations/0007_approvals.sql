-- migrate:up
-- The first decision wins. Everything a decision rests on is in the row; the caller brings who speaks.
create function runward.approval_decide(p_tenant text, p_id text, p_digest text, p_word text,
                                        p_user text, p_roles text[], p_reason text, p_record bytea,
                                        out accepted boolean, out state text, out reason text)
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp
set lock_timeout = '2s' as $$
declare
  a runward.approval;
  wanted text := case p_word when 'approve' then 'approved' when 'reject' then 'rejected' end;
begin
  accepted := false;
  state := 'void';
  if wanted is null then
    raise exception 'a decision is approve or reject' using errcode = '22023';
  end if;
  select * into a from runward.approval t where t.tenant = p_tenant and t.id = p_id;
  if not found then
    reason := 'unknown request';
    return;
  end if;
  -- The run's lock covers its requests; then read again what may have changed meanwhile.
  perform pg_advisory_xact_lock(runward.run_key(p_tenant, a.run_id));
  select * into strict a from runward.approval t where t.tenant = p_tenant and t.id = p_id;
  if a.state = 'pending' and clock_timestamp() > a.expires_at then
    update runward.approval t set state = 'expired' where t.tenant = p_tenant and t.id = p_id;
    a.state := 'expired';
  end if;
  state := a.state;
  if a.digest <> p_digest then
    reason := 'the decision is about another call';
  elsif p_user = a.requester then
    reason := 'the requester may not approve';
  elsif a.approver_role is null or not a.approver_role = any(p_roles) then
    reason := 'the approver''s role is missing';
  elsif a.state = 'expired' and a.decided_by is null then
    reason := 'approval expired';
  elsif a.decided_by = p_user and (a.state = wanted or (a.state = 'consumed' and wanted = 'approved'))
  then
    accepted := true;  -- said before by the same person
    reason := a.reason;
  elsif a.state <> 'pending' then
    reason := 'already ' || a.state;
  else
    update runward.approval t set state = wanted, decided_by = p_user, reason = p_reason,
           decided_at = clock_timestamp()
     where t.tenant = p_tenant and t.id = p_id;
    perform runward.record(p_tenant, 'approval', a.run_id, a.step, p_record);
    accepted := true; state := wanted; reason := p_reason;
  end if;
end $$;

-- migrate:down
drop function runward.approval_decide(text, text, text, text, text, text[], text, bytea);
