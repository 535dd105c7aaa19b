-- prelude: clock key_types hint leaves lost happened fence settle fair_queue
-- flags: allow-oom
-- Outcome Released: the worker gives the job back unfinished (drain). It returns to the head of the queue and has used up
-- no execution.
--
-- KEYS  1-6 as in settle   7 rq:queue:{queue}
-- ARGV  1-2 as in settle   3 wake channel   4 attempts   5 run time (ms)   6 trail (JSON)
-- Returns 'committed' | 'again' | 'fenced'
-- Invariant: the job is in the queue once.
local verdict = settles('list', KEYS[7], true)
if verdict ~= 'committed' then return verdict end

redis.call('HSET', KEYS[1], 'status', 'queued', 'enqueued_at', iso(now_ms), 'attempts', ARGV[4], 'run_ms', ARGV[5],
  'trail', ARGV[6])
enter_first(KEYS[7], ARGV[1])
hint(ARGV[3], KEYS[7])
return verdict
