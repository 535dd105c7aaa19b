-- prelude: clock key_types hint leaves lost happened fence settle ends event count dead_letters
-- flags: allow-oom
-- Outcome Dead: the job becomes a dead letter.
--
-- KEYS  1-6 as in settle   7 rq:results:{id}   8 rq:failed:{queue}   9 rq:worker:{name}   10 failover:dead:{queue}
-- ARGV  1-2 as in settle   3 reason   4 worker name   5 keep (s)   6 attempts   7 run time (ms)   8 detail
--       9 RQ's exc_string (base64 of zlib)   10 trail (JSON)   11 the last route tried, or ''
-- Returns 'committed' | 'again' | 'fenced'
-- Invariant: a dead letter is in the FailedJobRegistry, has a reason, and is in no queue, schedule or lease.
local verdict = settles('zset', KEYS[8])
if verdict ~= 'committed' then return verdict end

only_stream(KEYS[7])
redis.call('XADD', KEYS[7], '*', 'type', 2, 'worker_name', ARGV[4], 'exc_string', ARGV[9], 'execution_id', ARGV[2])
fit(KEYS[7])
unfile(KEYS[10], ARGV[1], KEYS[1]) -- an earlier `rq requeue` does not remove the index entries
redis.call('HSET', KEYS[1], 'status', 'failed', 'ended_at', iso(now_ms), 'attempts', ARGV[6], 'run_ms', ARGV[7],
  'dead_reason', ARGV[3], 'dead_detail', ARGV[8], 'trail', ARGV[10])
if ARGV[11] ~= '' then redis.call('HSET', KEYS[1], 'dead_route', ARGV[11]) end
file(KEYS[10], ARGV[1], KEYS[1], now_ms)
redis.call('ZADD', KEYS[8], math.floor(now_ms / 1000) + tonumber(ARGV[5]), ARGV[1])
ends(ARGV[1], KEYS[1], KEYS[6], KEYS[7], ARGV[5])
if redis.call('EXISTS', KEYS[9]) == 1 then
  redis.pcall('HINCRBY', KEYS[9], 'failed_job_count', 1)
end
return verdict
