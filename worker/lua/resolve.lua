-- prelude: clock ends dead
-- A human's answer becomes the result of a dead letter.
--
-- KEYS  1 rq:job:{id}   2 rq:failed:{queue}   3 rq:finished:{queue}   4 failover:accepted:{queue}
--       5 failover:dead:{queue}   6 rq:results:{id}   7 failover:audit
-- ARGV  1 job id   2 token   3 who   4 result (base64 of JSON)   5 keep (s)
-- Returns 'committed' | 'again' (our own resend) | 'not dead'
-- Invariant: a job has at most one result; one that is not dead keeps its own.
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then
  return redis.call('HGET', KEYS[1], 'settled') == ARGV[2] and 'again' or 'not dead'
end
unfile(KEYS[5], ARGV[1], KEYS[1])
redis.call('DEL', KEYS[6])
redis.call('XADD', KEYS[6], '*', 'type', 1, 'worker_name', ARGV[3], 'return_value', ARGV[4])
redis.call('HDEL', KEYS[1], 'dead_reason', 'dead_detail', 'dead_route', 'exc_info')
redis.call('HSET', KEYS[1], 'status', 'finished', 'ended_at', iso(now_ms), 'settled', ARGV[2])
redis.call('ZADD', KEYS[3], math.floor(now_ms / 1000) + tonumber(ARGV[5]), ARGV[1])
ends(ARGV[1], KEYS[1], KEYS[4], KEYS[6], ARGV[5])
redis.call('XADD', KEYS[7], 'MAXLEN', '~', 100000, '*', 'action', 'resolve', 'who', ARGV[3], 'token', ARGV[2],
  'jobs', ARGV[1])
return 'committed'
