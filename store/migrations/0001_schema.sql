-- migrate:up
-- Every key begins with the tenant and no foreign key crosses tenants, so that tenants can be spread
-- over databases. Two exceptions, both looked up before the tenant is known: issuer and execution.
create schema if not exists runward;

create table runward.issuer (
  kid        text primary key,
  public_key jsonb not null,
  tenants    text[] not null,
  roles      text[] not null,
  operations text[] not null,
  added_at   timestamptz not null default clock_timestamp(),
  revoked_at timestamptz
);

create table runward.run (
  tenant         text not null,
  run_id         text not null,  -- the chain's first run id
  workflow_id    text not null,
  user_id        text not null,
  roles          text[] not null,
  agent          text not null,
  agent_digest   text not null,
  policy         text not null,
  session        text not null,
  request_digest text not null,
  kid            text not null,
  jti            text not null,
  epoch          int not null default 0,
  round          int not null default 0,
  state          text not null default 'open'
                 check (state in ('open', 'answered', 'interrupted', 'cancelled', 'failed', 'ended')),
  reason         text not null default '',
  result_digest  text not null default '',
  opened_at      timestamptz not null default clock_timestamp(),
  closed_at      timestamptz,
  primary key (tenant, run_id),
  unique (tenant, jti),
  check ((state = 'open') = (closed_at is null))
);
create index run_open on runward.run (opened_at) where state = 'open';
create index run_user on runward.run (tenant, user_id, opened_at desc);

-- Which run an execution belongs to: continued, reset and retried executions of one chain.
create table runward.execution (
  run_id       text not null,
  workflow_id  text not null,
  tenant       text not null,
  first_run_id text not null,
  epoch        int not null,
  round        int not null,
  primary key (run_id, workflow_id)
);

create table runward.step (
  tenant     text not null,
  run_id     text not null,
  round      int not null,
  epoch      int not null,
  step       text not null,
  digest     text not null,  -- '' where the step was settled before the store saw what would run
  kind       text not null,
  name       text not null,
  state      text not null
             check (state in ('open', 'idle', 'done', 'denied', 'failed', 'unknown')),
  nonce      text not null default '',
  attempt    int not null default 0,
  tries      int not null default 0,        -- how often an attempt was admitted
  idempotent boolean not null default false,
  lost       boolean not null default false, -- open, and its attempt is believed dead
  outcome    bytea,
  head       text not null default '',
  message    text not null default '',
  grants     text[] not null default '{}',
  opened_at  timestamptz not null default clock_timestamp(),
  closed_at  timestamptz,
  primary key (tenant, run_id, round, step, epoch),
  check ((state in ('open', 'idle')) = (outcome is null))
) with (fillfactor = 70);

create table runward.bucket (
  tenant       text not null,
  id           bigint generated always as identity,
  scope        text not null check (scope in ('run', 'user')),
  scope_id     text not null,
  dimension    text not null
               check (dimension in ('tokens', 'input_tokens', 'output_tokens', 'cost', 'calls')),
  period       text not null check (period in ('run', 'day', 'month')),
  window_start timestamptz not null,
  window_end   timestamptz not null,
  -- No check compares with the cap: a cap may be lowered below what is used already.
  cap          bigint not null check (cap >= 0),
  held         bigint not null default 0 check (held >= 0),
  settled      bigint not null default 0 check (settled >= 0),
  overrun      bigint not null default 0 check (overrun >= 0),
  primary key (tenant, id),
  unique (tenant, scope, scope_id, dimension, period, window_start)
) with (fillfactor = 50);  -- a hot row keeps its new versions on its own page

-- One hold for each admitted attempt, also where no bucket is capped: it proves the admission.
create table runward.hold (
  tenant      text not null,
  nonce       text not null,
  run_id      text not null,
  round       int not null,
  epoch       int not null,
  step        text not null,
  buckets     bigint[] not null,
  dimensions  text[] not null,
  amounts     bigint[] not null,
  actuals     bigint[],
  state       text not null check (state in ('H', 'S', 'R', 'F')),
  created_at  timestamptz not null default clock_timestamp(),
  expires_at  timestamptz not null,
  resolved_at timestamptz,
  primary key (tenant, nonce),
  check (cardinality(buckets) = cardinality(amounts)),
  check (cardinality(buckets) = cardinality(dimensions)),
  check ((state = 'H') = (resolved_at is null))
);
create index hold_expiry on runward.hold (expires_at) where state = 'H';

create table runward.approval (
  tenant          text not null,
  id              text not null,
  run_id          text not null,
  round           int not null,
  epoch           int not null,
  step            text not null,
  workflow_id     text not null,
  kind            text not null check (kind in ('call', 'unknown')),
  tool            text not null,
  title           text not null,
  arguments       text not null,
  digest          text not null,
  requester       text not null,
  approver_role   text,
  state           text not null default 'pending'
                  check (state in ('pending', 'approved', 'rejected', 'expired', 'consumed', 'void')),
  reason          text not null default '',
  decided_by      text,
  created_at      timestamptz not null default clock_timestamp(),
  expires_at      timestamptz not null,
  execution_ttl_s int not null,
  decided_at      timestamptz,
  consumed_at     timestamptz,
  primary key (tenant, id)
);
create index approval_step on runward.approval (tenant, run_id, step);
create index approval_pending on runward.approval (tenant, created_at) where state = 'pending';

-- `seq` is the order of arrival, with gaps; a position in the Merkle tree is given later, by a reader
-- that waits until every transaction below `xact` has ended.
create table runward.audit_record (
  tenant    text not null,
  seq       bigint generated always as identity,
  kind      text not null,
  run_id    text not null,
  step      text not null default '',
  late      boolean not null default false,
  leaf      bytea not null check (length(leaf) between 1 and 65535),
  leaf_hash bytea not null generated always as (sha256('\x00'::bytea || leaf)) stored,
  xact      xid8 not null default pg_current_xact_id(),
  at        timestamptz not null default clock_timestamp(),
  primary key (tenant, seq)
);
create index audit_run on runward.audit_record (tenant, run_id, seq);

create table runward.transcript (
  tenant       text not null,
  run_id       text not null,
  head         text not null,
  previous     text not null,
  digest       text not null,
  content      bytea not null,
  prefix_bytes bigint not null,
  primary key (tenant, run_id, head)
);

create table runward.content (
  tenant  text not null,
  digest  text not null,
  content bytea not null,
  primary key (tenant, digest)
);

create table runward.policy (
  tenant text not null,
  hash   text not null,
  body   bytea not null,
  primary key (tenant, hash)
);

create table runward.agent_snapshot (
  tenant text not null,
  hash   text not null,
  body   bytea not null,
  primary key (tenant, hash)
);

-- migrate:down
drop schema runward cascade;
