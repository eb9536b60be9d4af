-- migrate:up
-- What the steps ask has one good plan each once the tables have grown a little (until then the
-- connections renew theirs). Left to choose, PostgreSQL plans the writes to buckets anew each time,
-- since it takes an array of unknown length for a long one. Whoever replaces one of these functions
-- says this again.
alter function runward.step_open(jsonb, bytea[], int[], int)
  set plan_cache_mode = force_generic_plan;
alter function runward.step_close(jsonb, bytea[], int[], int)
  set plan_cache_mode = force_generic_plan;

-- migrate:down
alter function runward.step_open(jsonb, bytea[], int[], int) reset plan_cache_mode;
alter function runward.step_close(jsonb, bytea[], int[], int) reset plan_cache_mode;
