-- prelude: clock key_types leaves lost happened fence ends event dead_letters
-- flags: allow-oom
-- Outcome Done: store the job's result.
--
-- KEYS  1-6 as in fence   7 rq:results:{id}   8 rq:finished:{queue}   9 rq:worker:{name}   10 failover:news:{queue}
-- ARGV  1-2 as in fence   3 result (base64 of JSON)   4 worker name   5 keep (s)   6 attempts   7 run time (ms)
--       8 '1' if not the first route answered   9 '1' if the answer was degraded, but not to save cost
-- Returns 'committed' | 'again' (a resend) | 'fenced' (this execution no longer holds the lease)
-- Invariant: a job has at most one result.
local verdict = settles('zset', KEYS[8])
if verdict ~= 'committed' then return verdict end

only_stream(KEYS[7])
redis.call('XADD', KEYS[7], '*', 'type', 1, 'worker_name', ARGV[4], 'return_value', ARGV[3], 'execution_id', ARGV[2])
redis.call('HSET', KEYS[1], 'status', 'finished', 'ended_at', iso(now_ms), 'attempts', ARGV[6], 'run_ms', ARGV[7])
redis.call('HDEL', KEYS[1], 'trail')
redis.call('ZADD', KEYS[8], math.floor(now_ms / 1000) + tonumber(ARGV[5]), ARGV[1])
ends(ARGV[1], KEYS[1], KEYS[6], KEYS[7], ARGV[5])
if redis.call('EXISTS', KEYS[9]) == 1 then
  redis.pcall('HINCRBY', KEYS[9], 'successful_job_count', 1)
  redis.pcall('HINCRBYFLOAT', KEYS[9], 'total_working_time', tonumber(ARGV[7]) / 1000)
end
if ARGV[8] == '1' then count(KEYS[10], 'saved', 1) end
if ARGV[9] == '1' then
  count(KEYS[10], 'degraded', 1)
  count(KEYS[10], 'degraded:tenant:' .. (redis.call('HGET', KEYS[1], 'tenant') or '?'), 1)
end
event('job.done', ARGV[1], KEYS[1])
return verdict
