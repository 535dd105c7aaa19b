-- prelude: clock key_types hint leaves lost happened fence ends event count dead_letters
-- flags: allow-oom
-- Outcome Done: store the job's result.
--
-- KEYS  1-6 as in fence   7 rq:results:{id}   8 rq:finished:{queue}   9 rq:worker:{name}   10 failover:news:{queue}
-- ARGV  1-2 as in fence   3 result (base64 of JSON)   4 worker name   5 keep (s)   6 run time (ms)
--       7 '1' if not the first route answered   8 '1' if the answer was degraded, but not to save cost
--       9 the rest of the result (compressed)   10 RQ's data in place of the prompt
-- Returns 'committed' | 'again' (a resend) | 'fenced' (this execution no longer holds the lease)
-- Invariant: a job has at most one result.
local verdict = releases_lease('zset', KEYS[8])
if verdict ~= 'committed' then return verdict end

only_stream(KEYS[7])
redis.call('XADD', KEYS[7], '*', 'type', 1, 'return_value', ARGV[3], 'more', ARGV[9])
fit(KEYS[7])
redis.call('ZADD', KEYS[8], math.floor(now_ms / 1000) + tonumber(ARGV[5]), ARGV[1])
done(ARGV[1], KEYS[1], KEYS[6], KEYS[7], ARGV[5],
  'status', 'finished', 'data', ARGV[10], 'ended_at', iso(now_ms), 'settled', ARGV[2])
if redis.call('EXISTS', KEYS[9]) == 1 then
  redis.pcall('HINCRBY', KEYS[9], 'successful_job_count', 1)
  redis.pcall('HINCRBYFLOAT', KEYS[9], 'total_working_time', tonumber(ARGV[6]) / 1000)
end
if ARGV[7] == '1' then count(KEYS[10], 'saved', 1) end
if ARGV[8] == '1' then
  count(KEYS[10], 'degraded', 1)
  count(KEYS[10], 'degraded:tenant:' .. (redis.call('HGET', KEYS[1], 'tenant') or '?'), 1)
end
event('job.done', ARGV[1], KEYS[1])
return verdict
