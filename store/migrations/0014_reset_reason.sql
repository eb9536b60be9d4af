-- migrate:up
-- As it was (0004), but for the reason of a call that is asked for only because of a reset: who
-- approves it has to know that this step may have had another effect already.
create or replace function runward.step_open_one(d runward.draft, p_leaves bytea[], p_first int,
                                      p_now timestamptz, inout l runward.ledger,
                                      out answer jsonb, out outcome bytea)
language plpgsql as $$
declare
  r runward.run;
  s runward.step;
  a runward.approval;
  verdict text := d.verdict;
  dead boolean;    -- an earlier attempt was admitted and never ended
  granted text;    -- the approval that this admission consumes
  held record;
begin
  -- 1. The run: opened by this step, or known.
  if d.opening is not null then
    answer := runward.open_run(d, p_leaves, p_first);
    if answer is not null then return; end if;
  end if;
  select * into r from runward.run where tenant = d.tenant and run_id = d.run_id;
  if not found then
    answer := jsonb_build_object('a', 'wait', 'reason', 'unknown run');
    return;
  end if;

  if r.content_gone_at is not null and r.state <> 'open' then
    answer := runward.refused('closed', 'the run is ' || r.state
      || ', and what it said was deleted by retention: start a new run');
    return;
  end if;

  -- 2. What is recorded beats every later verdict, and a closed run.
  select * into s from runward.step t where t.tenant = d.tenant and t.run_id = d.run_id
     and t.round = d.round and t.step = d.step and t.epoch = d.epoch;
  if found then
    if s.digest <> d.digest and not (s.digest = '' and s.outcome is not null) then
      answer := runward.refused('digest', 'the step was called with another digest');
    elsif s.outcome is not null then
      answer := '{"a": "recorded"}';
      outcome := s.outcome;
    elsif s.state = 'open' and s.nonce = d.nonce then
      -- A lost ack; unless a later attempt has taken this one for dead.
      answer := case when s.lost then '{"a": "wait", "reason": "a later attempt took over"}'::jsonb
                     else '{"a": "admitted"}' end;
    end if;
    if answer is not null then return; end if;
  elsif d.kind <> 'model' and d.epoch > 0 then
    select * into s from runward.step t where t.tenant = d.tenant and t.run_id = d.run_id
       and t.round = d.round and t.step = d.step and t.epoch < d.epoch and t.digest = d.digest
       and t.state <> 'idle'
     order by (t.outcome is null), t.epoch desc limit 1;
    if s.outcome is not null then
      insert into runward.step
        (tenant, run_id, round, epoch, step, digest, kind, name, state, nonce, attempt, tries,
         idempotent, outcome, head, message, grants, opened_at, closed_at)
      values (s.tenant, s.run_id, s.round, d.epoch, s.step, s.digest, s.kind, s.name, s.state, '',
              s.attempt, s.tries, s.idempotent, s.outcome, s.head, s.message, s.grants, s.opened_at,
              s.closed_at);
      answer := '{"a": "recorded"}';
      outcome := s.outcome;
      return;
    end if;
    if verdict = 'allow' and exists (
      select from runward.step t where t.tenant = d.tenant and t.run_id = d.run_id
         and t.round = d.round and t.step = d.step and t.epoch < d.epoch and t.digest <> d.digest
         and t.state in ('open', 'done', 'failed', 'unknown') and not t.idempotent) then
      verdict := 'ask';
      d.reason := d.name || ': before the reset it ran with other arguments';
    end if;
  end if;

  -- 3. A closed run, and an execution that a reset left behind, begin nothing.
  if r.state <> 'open' then
    answer := runward.refused('closed', 'the run is ' || r.state);
    return;
  elsif (d.round, d.epoch) < (r.round, r.epoch) then
    answer := runward.refused('closed', 'the execution was superseded');
    return;
  elsif (d.round, d.epoch) > (r.round, r.epoch) then
    answer := '{"a": "wait", "reason": "unknown epoch"}';
    return;
  elsif exists (select from runward.issuer i where i.kid = r.kid and i.revoked_at is not null) then
    answer := runward.refused('ticket', 'its issuer was revoked');
    return;
  elsif exists (select from runward.hold h where h.tenant = d.tenant and h.nonce = d.nonce) then
    answer := runward.refused('input', 'the nonce belongs to an attempt that has ended');
    return;
  end if;

  -- 4. Lineage.
  if d.parent is not null and not runward.lineage_holds(d) then
    answer := runward.refused('lineage', 'no recorded outcome leads to this step');
    return;
  end if;
  if d.approval_id is not null and not exists (
    select from runward.approval t where t.tenant = d.tenant and t.id = d.approval_id
       and t.run_id = d.run_id and t.round = d.round and t.step = d.step
       and t.digest = d.digest) then
    answer := runward.refused('approval', 'the approval is not for this call');
    return;
  end if;

  -- 5. An attempt that died inside: its hold is charged, and its effect is unknown.
  dead := coalesce(s.state = 'open', false);
  if dead then
    l := runward.write_reserved(l);  -- the dead attempt may stand in this very batch
    perform runward.resolve_hold(s.tenant, s.nonce, 'F', null);
    update runward.step t set lost = true where t.tenant = s.tenant and t.run_id = s.run_id
       and t.round = s.round and t.step = s.step and t.epoch = s.epoch and not t.lost;
    perform runward.step_idle(d, true);
  end if;
  if dead and not d.idempotent and d.kind <> 'model' and d.on_unknown <> 'retry' then
    if d.on_unknown = 'tell' then
      answer := runward.settled('unknown', 'the attempt ended inside the call');
      return;
    elsif d.approver_role is null then
      answer := runward.settled('unknown', 'approval required; no approver');
      return;
    end if;
    a := runward.request_for(d, 'unknown', r.user_id, p_now, false);
    if a.state = 'pending' then
      answer := runward.asked(a);
    elsif a.state = 'approved' then
      granted := a.id;
    else
      answer := runward.settled('unknown', case a.state when 'rejected' then 'approval declined'
        || coalesce(': ' || nullif(a.reason, ''), '') else 'approval expired' end);
    end if;
    if answer is not null then return; end if;
  end if;

  -- 6. The verdict. Who approved one more run of exactly this call has approved the call.
  if verdict = 'allow' or (verdict = 'ask' and granted is not null) then
    null;
  elsif verdict = 'ask' and d.approver_role is not null then
    a := runward.request_for(d, 'call', r.user_id, p_now, d.idempotent or dead);
    if a.state = 'approved' then
      granted := a.id;
    elsif a.state = 'pending' then
      answer := runward.asked(a);
    elsif a.state <> 'consumed' then
      answer := runward.settled('denied', case a.state when 'rejected' then 'approval declined'
        || coalesce(': ' || nullif(a.reason, ''), '') else 'approval expired' end);
    end if;
  elsif verdict = 'ask' then
    answer := runward.settled('denied', 'approval required; no approver');
  else
    answer := runward.settled('denied', d.reason);
  end if;

  -- 7. Budget: all or nothing. A refused hold consumes no approval.
  if answer is null then
    held := runward.reserve(d.tenant, d.buckets, d.ids, l);
    l := held.l;
    answer := held.short;
  end if;
  if answer is not null then
    perform runward.step_idle(d, false);
    return;
  end if;

  -- 8. Admitted.
  if granted is not null then
    update runward.approval t set state = 'consumed', consumed_at = p_now
     where t.tenant = d.tenant and t.id = granted;
  end if;
  insert into runward.step as t
    (tenant, run_id, round, epoch, step, digest, kind, name, state, nonce, attempt, tries,
     idempotent)
  values (d.tenant, d.run_id, d.round, d.epoch, d.step, d.digest, d.kind, d.name, 'open', d.nonce,
          d.attempt, 1, d.idempotent)
  on conflict (tenant, run_id, round, step, epoch) do update
     set state = 'open', nonce = d.nonce, attempt = d.attempt, tries = t.tries + 1,
         idempotent = d.idempotent, lost = false, opened_at = p_now;
  insert into runward.hold
    (tenant, nonce, run_id, round, epoch, step, buckets, dimensions, amounts, state, expires_at)
  values (d.tenant, d.nonce, d.run_id, d.round, d.epoch, d.step, d.ids, held.dimensions,
          held.amounts, 'H', p_now + make_interval(secs => d.hold_ttl_s));
  perform runward.record(d.tenant, 'intent', d.run_id, d.step, p_leaves[p_first + d.intent]);
  answer := '{"a": "admitted"}';
end $$;

-- migrate:down
create or replace function runward.step_open_one(d runward.draft, p_leaves bytea[], p_first int,
                                      p_now timestamptz, inout l runward.ledger,
                                      out answer jsonb, out outcome bytea)
language plpgsql as $$
declare
  r runward.run;
  s runward.step;
  a runward.approval;
  verdict text := d.verdict;
  dead boolean;    -- an earlier attempt was admitted and never ended
  granted text;    -- the approval that this admission consumes
  held record;
begin
  -- 1. The run: opened by this step, or known.
  if d.opening is not null then
    answer := runward.open_run(d, p_leaves, p_first);
    if answer is not null then return; end if;
  end if;
  select * into r from runward.run where tenant = d.tenant and run_id = d.run_id;
  if not found then
    answer := jsonb_build_object('a', 'wait', 'reason', 'unknown run');
    return;
  end if;

  if r.content_gone_at is not null and r.state <> 'open' then
    answer := runward.refused('closed', 'the run is ' || r.state
      || ', and what it said was deleted by retention: start a new run');
    return;
  end if;

  -- 2. What is recorded beats every later verdict, and a closed run.
  select * into s from runward.step t where t.tenant = d.tenant and t.run_id = d.run_id
     and t.round = d.round and t.step = d.step and t.epoch = d.epoch;
  if found then
    if s.digest <> d.digest and not (s.digest = '' and s.outcome is not null) then
      answer := runward.refused('digest', 'the step was called with another digest');
    elsif s.outcome is not null then
      answer := '{"a": "recorded"}';
      outcome := s.outcome;
    elsif s.state = 'open' and s.nonce = d.nonce then
      -- A lost ack; unless a later attempt has taken this one for dead.
      answer := case when s.lost then '{"a": "wait", "reason": "a later attempt took over"}'::jsonb
                     else '{"a": "admitted"}' end;
    end if;
    if answer is not null then return; end if;
  elsif d.kind <> 'model' and d.epoch > 0 then
    select * into s from runward.step t where t.tenant = d.tenant and t.run_id = d.run_id
       and t.round = d.round and t.step = d.step and t.epoch < d.epoch and t.digest = d.digest
       and t.state <> 'idle'
     order by (t.outcome is null), t.epoch desc limit 1;
    if s.outcome is not null then
      insert into runward.step
        (tenant, run_id, round, epoch, step, digest, kind, name, state, nonce, attempt, tries,
         idempotent, outcome, head, message, grants, opened_at, closed_at)
      values (s.tenant, s.run_id, s.round, d.epoch, s.step, s.digest, s.kind, s.name, s.state, '',
              s.attempt, s.tries, s.idempotent, s.outcome, s.head, s.message, s.grants, s.opened_at,
              s.closed_at);
      answer := '{"a": "recorded"}';
      outcome := s.outcome;
      return;
    end if;
    if verdict = 'allow' and exists (
      select from runward.step t where t.tenant = d.tenant and t.run_id = d.run_id
         and t.round = d.round and t.step = d.step and t.epoch < d.epoch and t.digest <> d.digest
         and t.state in ('open', 'done', 'failed', 'unknown') and not t.idempotent) then
      verdict := 'ask';
    end if;
  end if;

  -- 3. A closed run, and an execution that a reset left behind, begin nothing.
  if r.state <> 'open' then
    answer := runward.refused('closed', 'the run is ' || r.state);
    return;
  elsif (d.round, d.epoch) < (r.round, r.epoch) then
    answer := runward.refused('closed', 'the execution was superseded');
    return;
  elsif (d.round, d.epoch) > (r.round, r.epoch) then
    answer := '{"a": "wait", "reason": "unknown epoch"}';
    return;
  elsif exists (select from runward.issuer i where i.kid = r.kid and i.revoked_at is not null) then
    answer := runward.refused('ticket', 'its issuer was revoked');
    return;
  elsif exists (select from runward.hold h where h.tenant = d.tenant and h.nonce = d.nonce) then
    answer := runward.refused('input', 'the nonce belongs to an attempt that has ended');
    return;
  end if;

  -- 4. Lineage.
  if d.parent is not null and not runward.lineage_holds(d) then
    answer := runward.refused('lineage', 'no recorded outcome leads to this step');
    return;
  end if;
  if d.approval_id is not null and not exists (
    select from runward.approval t where t.tenant = d.tenant and t.id = d.approval_id
       and t.run_id = d.run_id and t.round = d.round and t.step = d.step
       and t.digest = d.digest) then
    answer := runward.refused('approval', 'the approval is not for this call');
    return;
  end if;

  -- 5. An attempt that died inside: its hold is charged, and its effect is unknown.
  dead := coalesce(s.state = 'open', false);
  if dead then
    l := runward.write_reserved(l);  -- the dead attempt may stand in this very batch
    perform runward.resolve_hold(s.tenant, s.nonce, 'F', null);
    update runward.step t set lost = true where t.tenant = s.tenant and t.run_id = s.run_id
       and t.round = s.round and t.step = s.step and t.epoch = s.epoch and not t.lost;
    perform runward.step_idle(d, true);
  end if;
  if dead and not d.idempotent and d.kind <> 'model' and d.on_unknown <> 'retry' then
    if d.on_unknown = 'tell' then
      answer := runward.settled('unknown', 'the attempt ended inside the call');
      return;
    elsif d.approver_role is null then
      answer := runward.settled('unknown', 'approval required; no approver');
      return;
    end if;
    a := runward.request_for(d, 'unknown', r.user_id, p_now, false);
    if a.state = 'pending' then
      answer := runward.asked(a);
    elsif a.state = 'approved' then
      granted := a.id;
    else
      answer := runward.settled('unknown', case a.state when 'rejected' then 'approval declined'
        || coalesce(': ' || nullif(a.reason, ''), '') else 'approval expired' end);
    end if;
    if answer is not null then return; end if;
  end if;

  -- 6. The verdict. Who approved one more run of exactly this call has approved the call.
  if verdict = 'allow' or (verdict = 'ask' and granted is not null) then
    null;
  elsif verdict = 'ask' and d.approver_role is not null then
    a := runward.request_for(d, 'call', r.user_id, p_now, d.idempotent or dead);
    if a.state = 'approved' then
      granted := a.id;
    elsif a.state = 'pending' then
      answer := runward.asked(a);
    elsif a.state <> 'consumed' then
      answer := runward.settled('denied', case a.state when 'rejected' then 'approval declined'
        || coalesce(': ' || nullif(a.reason, ''), '') else 'approval expired' end);
    end if;
  elsif verdict = 'ask' then
    answer := runward.settled('denied', 'approval required; no approver');
  else
    answer := runward.settled('denied', d.reason);
  end if;

  -- 7. Budget: all or nothing. A refused hold consumes no approval.
  if answer is null then
    held := runward.reserve(d.tenant, d.buckets, d.ids, l);
    l := held.l;
    answer := held.short;
  end if;
  if answer is not null then
    perform runward.step_idle(d, false);
    return;
  end if;

  -- 8. Admitted.
  if granted is not null then
    update runward.approval t set state = 'consumed', consumed_at = p_now
     where t.tenant = d.tenant and t.id = granted;
  end if;
  insert into runward.step as t
    (tenant, run_id, round, epoch, step, digest, kind, name, state, nonce, attempt, tries,
     idempotent)
  values (d.tenant, d.run_id, d.round, d.epoch, d.step, d.digest, d.kind, d.name, 'open', d.nonce,
          d.attempt, 1, d.idempotent)
  on conflict (tenant, run_id, round, step, epoch) do update
     set state = 'open', nonce = d.nonce, attempt = d.attempt, tries = t.tries + 1,
         idempotent = d.idempotent, lost = false, opened_at = p_now;
  insert into runward.hold
    (tenant, nonce, run_id, round, epoch, step, buckets, dimensions, amounts, state, expires_at)
  values (d.tenant, d.nonce, d.run_id, d.round, d.epoch, d.step, d.ids, held.dimensions,
          held.amounts, 'H', p_now + make_interval(secs => d.hold_ttl_s));
  perform runward.record(d.tenant, 'intent', d.run_id, d.step, p_leaves[p_first + d.intent]);
  answer := '{"a": "admitted"}';
end $$;
