-- migrate:up
-- Lists and completion show a tenant's newest runs; without it each sorts all of them.
create index run_listed on runward.run (tenant, opened_at desc);

-- migrate:down
drop index runward.run_listed;
