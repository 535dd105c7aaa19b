-- prelude: clock key_types hint leaves lost happened fence settle
-- flags: allow-oom
-- Outcome Retry or Park: the job waits in RQ's schedule. A retry uses up an execution, a park does not.
--
-- KEYS  1-6 as in settle   7 rq:scheduled:{queue}
-- ARGV  1-2 as in settle   3 'retry' | 'park' | 'park in turn'   4 wait (ms)   5 why, in words   6 attempts   7 run time (ms)   8 trail (JSON)
--       9 why, as producer/waiting.py names it   10 what it waits for: subjects separated by blanks
-- Returns 'committed' | 'again' | 'fenced'
-- Invariant: the job is in the schedule and nowhere else, with no TTL.
local verdict = settles('zset', KEYS[7])
if verdict ~= 'committed' then return verdict end

local due_ms = now_ms + tonumber(ARGV[4])
redis.call('HSET', KEYS[1], 'status', 'scheduled', 'attempts', ARGV[6], 'run_ms', ARGV[7], 'trail', ARGV[8],
  'waiting', ARGV[3], 'waiting_reason', ARGV[9], 'waiting_subjects', ARGV[10], 'waiting_for', ARGV[5],
  'waiting_until_ms', due_ms)
if ARGV[3] == 'retry' then
  redis.call('HSET', KEYS[1], 'executions', (tonumber(redis.call('HGET', KEYS[1], 'executions')) or 0) + 1)
end
redis.call('ZADD', KEYS[7], due_ms / 1000, ARGV[1])
return verdict
