-- migrate:up
-- What a run did, in the order of its transactions: `xact` says from when on nothing can come before.
alter table runward.approval add column xact xid8 not null default pg_current_xact_id();
create index audit_run_xact on runward.audit_record (tenant, run_id, xact, seq);
drop index runward.audit_run;

-- migrate:down
create index audit_run on runward.audit_record (tenant, run_id, seq);
drop index runward.audit_run_xact;
alter table runward.approval drop column xact;
