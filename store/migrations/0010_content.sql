-- migrate:up
-- Large content: in chunks, so that nobody holds more of it than one, and put there before the step
-- that refers to it ends, so that no batch waits for it. Written once under its own digest: whoever
-- may put content can change none. `free_at` is when it may go if no run uses it by then; null where
-- the last look found a use of it, and nobody has put it again since.
create table runward.large_content (
  tenant     text not null check (octet_length(tenant) between 1 and 1000),
  digest     text not null check (digest ~ '^[A-Za-z0-9_-]{43}$'),
  size       bigint not null check (size between 1 and 67108864),
  complete   boolean not null default false,
  free_at    timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  primary key (tenant, digest)
);
create index large_content_free on runward.large_content (free_at) where free_at is not null;

create table runward.content_chunk (
  tenant text not null,
  digest text not null,
  n      int not null,
  data   bytea not null check (octet_length(data) between 1 and 1048576),
  primary key (tenant, digest, n)
);
-- To compress a chunk takes longer than to write it.
alter table runward.content_chunk alter column data set storage external;

-- Begins to put content, or holds what is there for as long as p_hold_s. Returns whether it is there
-- completely: then nothing has to be sent.
create function runward.content_begin(p_tenant text, p_digest text, p_size bigint, p_hold_s int)
returns boolean
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp
set lock_timeout = '2s' as $$
declare
  c runward.large_content;
begin
  if p_hold_s is null or p_hold_s not between 0 and 604800 then
    raise exception 'content is held for a week at most' using errcode = '22003';
  end if;
  insert into runward.large_content as t (tenant, digest, size, free_at)
  values (p_tenant, p_digest, p_size, clock_timestamp() + make_interval(secs => p_hold_s))
  on conflict (tenant, digest) do update set free_at = greatest(t.free_at, excluded.free_at)
  returning * into c;
  if c.size <> p_size then
    if c.complete then
      raise exception 'this content has another size' using errcode = '22023';
    end if;
    -- Somebody said another size and sent no such content.
    delete from runward.content_chunk t where t.tenant = p_tenant and t.digest = p_digest;
    update runward.large_content t set size = p_size
     where t.tenant = p_tenant and t.digest = p_digest;
  end if;
  return c.complete;
end $$;

-- Stores chunk p_n of content that was begun; after the last one the whole is compared with its
-- digest. Returns 'more', 'complete', or 'broken': begin again.
create function runward.content_put(p_tenant text, p_digest text, p_n int, p_data bytea) returns text
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp
set lock_timeout = '2s' as $$
declare
  c runward.large_content;
  last int;
begin
  select * into c from runward.large_content t
   where t.tenant = p_tenant and t.digest = p_digest for no key update;
  if not found then
    return 'broken';
  elsif c.complete then
    return 'complete';
  end if;
  last := (c.size - 1) / 1048576;
  if p_n is null or p_n not between 0 and last
     or octet_length(p_data) is distinct from
        (case p_n when last then c.size - last * 1048576::bigint else 1048576 end)::int then
    raise exception 'not a chunk of this content' using errcode = '22023';
  end if;
  insert into runward.content_chunk (tenant, digest, n, data)
  values (p_tenant, p_digest, p_n, p_data)
  on conflict (tenant, digest, n) do update set data = excluded.data;
  if p_n < last then
    perform set_config('synchronous_commit', 'off', true);  -- the last chunk's commit covers it
    return 'more';
  end if;
  if p_digest is distinct from (
    select translate(rtrim(encode(sha256(string_agg(t.data, '' order by t.n)), 'base64'), '='),
                     '+/', '-_')
      from runward.content_chunk t where t.tenant = p_tenant and t.digest = p_digest) then
    delete from runward.content_chunk t where t.tenant = p_tenant and t.digest = p_digest;
    return 'broken';
  end if;
  update runward.large_content t set complete = true
   where t.tenant = p_tenant and t.digest = p_digest;
  return 'complete';
end $$;

-- Notes that a run uses content, which may be in either table; its first step does so before it
-- opens the run. Returns whether it is there. The lock on its row keeps it from being deleted before
-- the use is there to see.
create function runward.content_claim(p_tenant text, p_run text, p_digest text) returns boolean
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp
set lock_timeout = '2s' as $$
begin
  perform from runward.large_content t
   where t.tenant = p_tenant and t.digest = p_digest and t.complete for key share;
  if not found then
    perform from runward.content t
     where t.tenant = p_tenant and t.digest = p_digest for key share;
  end if;
  if not found or exists (select from runward.run r where r.tenant = p_tenant
                             and r.run_id = p_run and r.content_gone_at is not null) then
    return false;
  end if;
  insert into runward.content_use (tenant, run_id, digest)
  values (p_tenant, p_run, p_digest) on conflict do nothing;
  return true;
end $$;

-- As before, with large content, which is let go here and deleted by delete_unused: it may have been
-- put again for a run that has not begun.
create or replace function runward.delete_content(p_tenant text, p_run text, p_max int) returns int
language plpgsql as $$
declare
  d text;
  size bigint;
  here boolean;
  large boolean;
  gone bigint := 0;
  stays boolean := false;
begin
  for d in select u.digest from runward.content_use u
            where u.tenant = p_tenant and u.run_id = p_run order by u.digest limit p_max loop
    select octet_length(c.content) into size from runward.content c
     where c.tenant = p_tenant and c.digest = d for update skip locked;
    here := found;
    perform from runward.large_content c
     where c.tenant = p_tenant and c.digest = d for update skip locked;
    large := found;
    if not here and exists (select from runward.content c
                             where c.tenant = p_tenant and c.digest = d)
       or not large and exists (select from runward.large_content c
                                 where c.tenant = p_tenant and c.digest = d) then
      stays := true;
      continue;
    end if;
    delete from runward.content_use u
     where u.tenant = p_tenant and u.run_id = p_run and u.digest = d;
    gone := gone + 1;
    if not exists (select from runward.content_use u where u.tenant = p_tenant and u.digest = d) then
      if here then
        delete from runward.content c where c.tenant = p_tenant and c.digest = d;
        gone := gone + 1 + size / 8192;  -- about what it takes to delete
      end if;
      if large then
        update runward.large_content c set free_at = coalesce(c.free_at, clock_timestamp())
         where c.tenant = p_tenant and c.digest = d;
      end if;
    end if;
    exit when gone >= p_max;
  end loop;
  return case when stays and gone < p_max then -1 else least(gone, 2147483647) end;
end $$;

-- Deletes large content that no run uses and nobody holds any more, about p_max rows of it, a chunk
-- counted for 128. Returns how many; 0 when nothing is left or another session is at it.
create function runward.delete_unused(p_max int) returns int
language plpgsql security definer set search_path = runward, pg_catalog, pg_temp
set enable_seqscan = off as $$
declare
  c runward.large_content;
  room int := p_max;
  n int;
begin
  if p_max is null or p_max < 1 then
    raise exception 'at least a row' using errcode = '22003';
  end if;
  if not pg_try_advisory_xact_lock(7041100003) then return 0; end if;
  perform set_config('synchronous_commit', 'off', true);  -- as delete_retired
  for c in select * from runward.large_content t where t.free_at < clock_timestamp()
            order by t.free_at limit p_max for update skip locked loop
    exit when room <= 0;
    room := room - 1;
    -- The use of a run that never began is none.
    if exists (select from runward.content_use u
                 join runward.run r on r.tenant = u.tenant and r.run_id = u.run_id
                where u.tenant = c.tenant and u.digest = c.digest) then
      update runward.large_content t set free_at = null
       where t.tenant = c.tenant and t.digest = c.digest;
      continue;
    end if;
    if c.complete then
      update runward.large_content t set complete = false
       where t.tenant = c.tenant and t.digest = c.digest;
    end if;
    delete from runward.content_chunk x where x.tenant = c.tenant and x.digest = c.digest
       and x.n in (select y.n from runward.content_chunk y
                    where y.tenant = c.tenant and y.digest = c.digest
                    order by y.n limit 1 + room / 128);
    get diagnostics n = row_count;
    room := room - 128 * n;
    if not exists (select from runward.content_chunk x
                    where x.tenant = c.tenant and x.digest = c.digest) then
      delete from runward.content_use u where u.tenant = c.tenant and u.digest = c.digest
         and not exists (select from runward.content k
                          where k.tenant = c.tenant and k.digest = c.digest);
      delete from runward.large_content t where t.tenant = c.tenant and t.digest = c.digest;
    end if;
  end loop;
  return p_max - room;
end $$;

revoke all on runward.large_content, runward.content_chunk from public;
grant select on runward.large_content, runward.content_chunk to runward_worker, runward_reader;
revoke execute on function
  runward.content_begin(text, text, bigint, int),
  runward.content_put(text, text, int, bytea),
  runward.content_claim(text, text, text),
  runward.delete_unused(int)
from public;
-- Clients connect as readers, and put what their users send.
grant execute on function
  runward.content_begin(text, text, bigint, int),
  runward.content_put(text, text, int, bytea)
to runward_worker, runward_reader;
grant execute on function
  runward.content_claim(text, text, text),
  runward.delete_unused(int)
to runward_worker;

-- migrate:down
create or replace function runward.delete_content(p_tenant text, p_run text, p_max int) returns int
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
drop function runward.delete_unused(int);
drop function runward.content_claim(text, text, text);
drop function runward.content_put(text, text, int, bytea);
drop function runward.content_begin(text, text, bigint, int);
drop table runward.content_chunk;
drop table runward.large_content;
