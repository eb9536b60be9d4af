-- migrate:up
-- What a failed try of a model's step leaves behind, so that every worker goes on counting.
alter table runward.step
  add column place int not null default 0,         -- which of the agent's models is asked
  add column tries_before int not null default 0,  -- `tries` when that model's turn began
  add column unreadable int not null default 0;    -- answers of that model that nobody could read

-- Notes a failed try before its attempt ends: a worker that dies in between has not lost it. Fenced
-- by the nonce; the same note once more changes nothing, and none goes back to an earlier model.
create function runward.step_failed(p_tenant text, p_run text, p_round int, p_epoch int,
                                    p_step text, p_nonce text, p_place int, p_model text,
                                    p_unreadable int) returns void
language sql security definer set search_path = runward, pg_catalog, pg_temp as $$
  update runward.step s
     set tries_before = case when p_place = s.place then s.tries_before else s.tries end,
         place = p_place, name = p_model, unreadable = p_unreadable
   where s.tenant = p_tenant and s.run_id = p_run and s.round = p_round and s.epoch = p_epoch
     and s.step = p_step and s.nonce = p_nonce and s.kind = 'model' and s.state = 'open'
     and p_place >= s.place
$$;

revoke execute on function
  runward.step_failed(text, text, int, int, text, text, int, text, int)
from public;
grant execute on function
  runward.step_failed(text, text, int, int, text, text, int, text, int)
to runward_worker;

-- migrate:down
drop function runward.step_failed(text, text, int, int, text, text, int, text, int);
alter table runward.step drop column unreadable, drop column tries_before, drop column place;
