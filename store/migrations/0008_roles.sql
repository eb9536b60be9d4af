-- migrate:up
-- Tools run in the worker's process: its role may call the step functions and read, nothing else.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['runward_worker', 'runward_reader'] loop
    if not exists (select from pg_roles where rolname = wanted) then
      begin
        execute format('create role %I nologin', wanted);
      exception when duplicate_object or unique_violation then
        null;  -- roles belong to the whole server: another database's migration was faster
      end;
    end if;
  end loop;
end $$;

revoke all on schema runward from public;
revoke all on all tables in schema runward from public;
revoke execute on all functions in schema runward from public;

grant usage on schema runward to runward_worker, runward_reader;
grant select on all tables in schema runward to runward_reader;
grant select on runward.schema_migrations, runward.issuer, runward.run, runward.execution,
  runward.step, runward.bucket, runward.hold, runward.approval, runward.transcript, runward.content,
  runward.policy, runward.agent_snapshot to runward_worker;
grant execute on function
  runward.step_open(jsonb, bytea[], int[], int),
  runward.step_close(jsonb, bytea[], int[], int),
  runward.run_adopt(text, text, text, text),
  runward.run_close(text, text, int, int, text, text, text, bytea),
  runward.step_resolve(text, text, int, int, text, runward.ending, runward.ending, bytea[]),
  runward.approval_decide(text, text, text, text, text, text[], text, bytea),
  runward.forfeit_expired(int)
to runward_worker;

-- migrate:down
revoke all on all tables in schema runward from runward_worker, runward_reader;
revoke all on all functions in schema runward from runward_worker;
revoke usage on schema runward from runward_worker, runward_reader;
