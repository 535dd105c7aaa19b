-- prelude: clock happened audit_trail hint leaves ends event count dead_letters fair_queue
-- flags: allow-oom
-- Cancel jobs of one tenant that wait: queued or scheduled.
--
-- KEYS  1 rq:queue:{queue}   2 rq:scheduled:{queue}   3 rq:canceled:{queue}   4 failover:accepted:{queue}   5 failover:audit
-- ARGV  1 token   2 who   3 keep (s)   4 rq:job:   5 rq:results:   6 tenant   7.. job ids, the last of a list first
-- Returns {ids cancelled, ids that did not wait: they run, have ended, or are of another tenant}
-- Invariant: a job is cancelled once; a resend of the token reports the same and does nothing. A job that a worker holds is
--            left alone.
local cancelled, fresh, others = {}, {}, {}
for i = 7, #ARGV do
  local id = ARGV[i]
  local job = ARGV[4] .. id
  local state = redis.call('HMGET', job, 'status', 'tenant', 'cancelled_by')
  local waits = state[2] == ARGV[6] and (state[1] == 'queued' or state[1] == 'scheduled')
  if waits then
    if redis.call('ZREM', KEYS[2], id) == 0 then leave(KEYS[1], id, ARGV[6]) end
    redis.call('HDEL', job, 'waiting', 'waiting_reason', 'waiting_subjects', 'waiting_for', 'waiting_until_ms')
    redis.call('HSET', job, 'status', 'canceled', 'ended_at', iso(now_ms), 'cancelled_by', ARGV[1])
    redis.call('ZADD', KEYS[3], math.floor(now_ms / 1000), id)
    ends(id, job, KEYS[4], ARGV[5] .. id, ARGV[3])
    happened_to(job, 'cancelled')
    fresh[#fresh + 1] = id
  end
  local list = (waits or state[3] == ARGV[1]) and cancelled or others
  list[#list + 1] = id
end
if #fresh > 0 then
  audited(KEYS[5], 'cancel', ARGV[2], 'tenant', ARGV[6], 'token', ARGV[1], 'jobs', table.concat(fresh, ' '))
end
return {cancelled, others}
