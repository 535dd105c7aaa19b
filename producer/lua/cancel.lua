-- prelude: clock key_types happened audit_trail hint leaves ends event count dead_letters fair_queue withdraw
-- flags: allow-oom
-- Cancel a job that has not ended.
--
-- KEYS  1-10 as in withdraw   11 rq:canceled:{queue}
-- ARGV  1-3 as in withdraw   4 who   5 keep (s)
-- Returns the status that it had (RQ's name), or 'unknown'. A job that has ended is not changed.
-- Invariant: afterwards the job is in no lease or schedule, and is never claimed. Its entry in a long list may stay (fair_queue.lua).
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return 'unknown' end
if status == 'finished' or status == 'canceled' or status == 'failed' then return status end

expect('zset', KEYS[11])
expect_withdrawn()
withdraw()
redis.call('HSET', KEYS[1], 'status', 'canceled')
redis.call('ZADD', KEYS[11], math.floor(now_ms / 1000), ARGV[1])
ends(ARGV[1], KEYS[1], KEYS[7], KEYS[9], ARGV[5])
happened_to(KEYS[1], 'cancelled')
audited(KEYS[10], 'cancel', ARGV[4], 'jobs', ARGV[1])
return status
