-- prelude: clock key_types happened audit_trail hint leaves ends event count dead_letters fair_queue withdraw
-- flags: allow-oom
-- A human's answer becomes the job's result, in whatever state the job is; an execution that runs is fenced.
--
-- KEYS  1-10 as in withdraw   11 rq:finished:{queue}
-- ARGV  1-3 as in withdraw   4 who   5 keep (s)   6 token   7 result (base64 of JSON)
--       8 the rest of the result (compressed)   9 RQ's data in place of the prompt
-- Returns 'committed' | 'again' (a resend) | 'ended' (done or cancelled: nothing was changed) | 'unknown'
-- Invariant: a job has at most one result.
local before = redis.call('HMGET', KEYS[1], 'status', 'resolved_by')
if not before[1] then return 'unknown' end
if before[1] == 'finished' or before[1] == 'canceled' then return before[2] == ARGV[6] and 'again' or 'ended' end

expect('zset', KEYS[11])
expect_withdrawn()
withdraw()
happened_to(KEYS[1], 'resolved')
redis.call('DEL', KEYS[9])
redis.call('XADD', KEYS[9], '*', 'type', 1, 'worker_name', ARGV[4], 'return_value', ARGV[7], 'more', ARGV[8])
fit(KEYS[9])
redis.call('ZADD', KEYS[11], math.floor(now_ms / 1000) + tonumber(ARGV[5]), ARGV[1])
local state = state_of(KEYS[1])
leaves(KEYS[7], ARGV[1])
done(KEYS[1], KEYS[9], ARGV[5], state,
  'status', 'finished', 'data', ARGV[9], 'ended_at', iso(now_ms), 'resolved_by', ARGV[6])
audited(KEYS[10], 'resolve', ARGV[4], 'jobs', ARGV[1])
event('job.done', ARGV[1], state.tenant)
return 'committed'
