-- migrate:up
-- What a run leaves goes when an operator's settings say so: first what was said (content), then its
-- steps, holds and approvals. The run's own row stays: it keeps its ticket spent and confirms its
-- answer's digest. So do its executions, the ledger's buckets, and every audit record.
--
-- A run is marked before the first of its rows goes, and a marked run is never opened again by a
-- reset: what it would look for, so as not to act twice, may be gone. The functions that a step goes
-- through (step_open_one, step_close_one, run_adopt) see to that.
alter table runward.run
  add column content_gone_at timestamptz,
  add column steps_gone_at timestamptz,
  add check (steps_gone_at is null or content_gone_at is not null);
create index run_content_due on runward.run (closed_at)
  where closed_at is not null and content_gone_at is null;
create index run_steps_due on runward.run (closed_at)
  where closed_at is not null and steps_gone_at is null;
-- Only of holds that have ended: admitting a step writes nothing into it.
create index hold_ended on runward.hold (tenant, run_id) where state <> 'H';

-- Marked runs of which rows are left.
create table runward.retired (
  tenant text not null,
  run_id text not null,
  part   text not null check (part in ('content', 'steps')),  -- 'steps' is everything
  primary key (tenant, run_id)
);

-- Which runs a row of content belongs to; it goes with the last of them.
create table runward.content_use (
  tenant text not null,
  run_id text not null,
  digest text not null,
  primary key (tenant, run_id, digest)
);
create index content_use_digest on runward.content_use (tenant, digest);

-- Stores content and notes the use. The lock on the row keeps it from being deleted before the use
-- is there to see; the deletion waits for nobody, so nobody waits for it in a circle.
create function runward.use_content(p_tenant text, p_run text, p_digest text, p_content bytea)
returns void language plpgsql as $$
begin
  loop
    insert into runward.content (tenant, digest, content)
    values (p_tenant, p_digest, p_content) on conflict do nothing;
    perform from runward.content c where c.tenant = p_tenant and c.digest = p_digest for key share;
    exit when found;
  end loop;
  insert into runward.content_use (tenant, run_id, digest)
  values (p_tenant, p_run, p_digest) on conflict do nothing;
end $$;

-- Marks those of the runs that ended at least so many days ago; returns how many. Only what is
-- marked here is ever deleted, and nothing younger than a day: the worker's role, which tools share,
-- could say any number.
create function runward.retire(p_tenants text[], p_runs text[], p_part text, p_days int)
returns int
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp as $$
declare
  u record;
  r runward.run;
  marked int := 0;
begin
  if p_part is null or p_part not in ('content', 'steps') then
    raise exception 'a part is content or steps' using errcode = '22023';
  elsif p_days is null or p_days < 1 then
    raise exception 'at least a day' using errcode = '22003';
  end if;
  for u in select distinct t.tenant, t.run_id from unnest(p_tenants, p_runs) t(tenant, run_id) loop
    -- Whoever has the run's lock is busy with it: another time.
    continue when not pg_try_advisory_xact_lock(runward.run_key(u.tenant, u.run_id));
    select * into r from runward.run t where t.tenant = u.tenant and t.run_id = u.run_id;
    continue when not found or r.closed_at is null
      or r.closed_at > clock_timestamp() - make_interval(days => p_days)
      or case p_part when 'steps' then r.steps_gone_at else r.content_gone_at end is not null;
    if p_part = 'steps' then
      -- A hold that nobody has charged yet is money; forfeit_expired comes first.
      continue when exists (
        select from runward.step s join runward.hold h on h.tenant = s.tenant and h.nonce = s.nonce
         where s.tenant = r.tenant and s.run_id = r.run_id and h.state = 'H');
    end if;
    update runward.run t
       set content_gone_at = coalesce(t.content_gone_at, clock_timestamp()),
           steps_gone_at = case p_part when 'steps' then clock_timestamp() end
     where t.tenant = r.tenant and t.run_id = r.run_id;
    insert into runward.retired as t (tenant, run_id, part) values (r.tenant, r.run_id, p_part)
    on conflict (tenant, run_id) do update set part = excluded.part;
    marked := marked + 1;
  end loop;
  return marked;
end $$;

-- Deletes rows of content that were the run's alone, and its uses of others; what somebody has
-- locked stays for another time. Returns how many rows, large ones counted for more; -1 where some
-- had to stay.
create function runward.delete_content(p_tenant text, p_run text, p_max int) returns int
language plpgsql as $$
declare
  d text;
  size bigint;
  gone bigint := 0;
  stays boolean := false;
begin
  for d in select u.digest from runward.content_use u
            where u.tenant = p_tenant and u.run_id = p_run order by u.digest limit p_max loop
    select octet_length(c.content) into size from runward.content c
     where c.tenant = p_tenant and c.digest = d for update skip locked;
    if not found then
      stays := true;
      continue;
    end if;
    delete from runward.content_use u
     where u.tenant = p_tenant and u.run_id = p_run and u.digest = d;
    gone := gone + 1;
    if not exists (select from runward.content_use u where u.tenant = p_tenant and u.digest = d) then
      delete from runward.content c where c.tenant = p_tenant and c.digest = d;
      gone := gone + 1 + size / 8192;  -- about what it takes to delete
    end if;
    exit when gone >= p_max;
  end loop;
  return case when stays and gone < p_max then -1 else least(gone, 2147483647) end;
end $$;

-- Deletes about p_max rows of marked runs, in the caller's one transaction; returns how many, 0 when
-- nothing is left or another session is at it. One at a time is enough, and two could each leave
-- content to the other.
create function runward.delete_retired(p_max int) returns int
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp
set enable_seqscan = off as $$  -- no plan of a young table reads all of it when it has grown
declare
  t runward.retired;
  room int := p_max;
  n int;
  stays boolean;
begin
  if p_max is null or p_max < 1 then
    raise exception 'at least a row' using errcode = '22003';
  end if;
  if not pg_try_advisory_xact_lock(7041100002) then return 0; end if;
  -- Steps wait for their commits to reach the disk, and this would have them wait longer. What a
  -- crash brings back is deleted again.
  perform set_config('synchronous_commit', 'off', true);
  for t in select * from runward.retired order by tenant, run_id limit p_max for update skip locked
  loop
    exit when room <= 0;
    continue when not pg_try_advisory_xact_lock(runward.run_key(t.tenant, t.run_id));
    if exists (select from runward.run r
                where r.tenant = t.tenant and r.run_id = t.run_id and r.state = 'open') then
      -- A further round: the rows go when that has ended.
      delete from runward.retired x where x.tenant = t.tenant and x.run_id = t.run_id;
      continue;
    end if;
    delete from runward.transcript x where x.ctid = any(array(
      select y.ctid from runward.transcript y
       where y.tenant = t.tenant and y.run_id = t.run_id limit room for update skip locked));
    get diagnostics n = row_count;
    room := room - n;
    continue when room <= 0;
    n := runward.delete_content(t.tenant, t.run_id, room);
    stays := n < 0;
    room := room - greatest(n, 0);
    continue when room <= 0;
    if t.part = 'content' then
      update runward.step x set outcome = '' where x.ctid = any(array(
        select y.ctid from runward.step y where y.tenant = t.tenant and y.run_id = t.run_id
           and y.outcome <> '' limit room for update skip locked));
    else
      delete from runward.step x where x.ctid = any(array(
        select y.ctid from runward.step y where y.tenant = t.tenant and y.run_id = t.run_id
         limit room for update skip locked));
    end if;
    get diagnostics n = row_count;
    room := room - n;
    continue when room <= 0;
    if t.part = 'content' then
      update runward.approval x set arguments = '' where x.ctid = any(array(
        select y.ctid from runward.approval y where y.tenant = t.tenant and y.run_id = t.run_id
           and y.arguments <> '' limit room for update skip locked));
    else
      delete from runward.approval x where x.ctid = any(array(
        select y.ctid from runward.approval y where y.tenant = t.tenant and y.run_id = t.run_id
         limit room for update skip locked));
    end if;
    get diagnostics n = row_count;
    room := room - n;
    continue when room <= 0;
    if t.part = 'steps' then
      delete from runward.hold x where x.ctid = any(array(
        select y.ctid from runward.hold y where y.tenant = t.tenant and y.run_id = t.run_id
           and y.state <> 'H' limit room for update skip locked));
      get diagnostics n = row_count;
      room := room - n;
    end if;
    if room > 0 and not stays then
      delete from runward.retired x where x.tenant = t.tenant and x.run_id = t.run_id;
      room := room - 1;
    end if;
  end loop;
  return p_max - room;
end $$;

revoke all on runward.retired, runward.content_use from public;
grant select on runward.retired, runward.content_use to runward_reader;
revoke execute on function
  runward.use_content(text, text, text, bytea),
  runward.retire(text[], text[], text, int),
  runward.delete_content(text, text, int),
  runward.delete_retired(int)
from public;
grant execute on function
  runward.retire(text[], text[], text, int),
  runward.delete_retired(int)
to runward_worker;

-- migrate:down
drop function runward.delete_retired(int);
drop function runward.delete_content(text, text, int);
drop function runward.retire(text[], text[], text, int);
drop function runward.use_content(text, text, text, bytea);
drop table runward.content_use;
drop table runward.retired;
drop index runward.hold_ended;
alter table runward.run drop column steps_gone_at, drop column content_gone_at;
