-- prelude: clock hint key_types audit_trail leaves fair_queue
-- flags: allow-oom
-- Last safety check: accepted jobs that seem to be in no list, lease or schedule are checked again, and queued.
--
-- KEYS  1 failover:accepted:{queue}   2 rq:queue:{queue}   3 failover:leases:{queue}   4 rq:scheduled:{queue}
--       5 failover:audit
-- ARGV  1 rq:job:   2 wake channel   3.. ids of jobs that the worker found in no list
-- Returns {ids queued again, ids whose job is gone or has ended}
-- Invariant: a job that is in the queue, a lease or the schedule is not changed. So the worker's list may be outdated.
expect('list', KEYS[2])
expect('zset', KEYS[1] .. ':promised')
expect('stream', KEYS[5])
local queued, ended = {}, {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local job = ARGV[1] .. id
  local state = redis.call('HMGET', job, 'status', 'lease', 'tenant')
  local live = state[1] == 'queued' or state[1] == 'started' or state[1] == 'scheduled'
  if not redis.call('ZSCORE', KEYS[1], id) then
    -- it ended after the worker had read the lists
  elseif not live then
    leaves(KEYS[1], id)
    ended[#ended + 1] = id
  elseif not (state[2] and redis.call('ZSCORE', KEYS[3], id .. ':' .. state[2]))
    and not redis.call('ZSCORE', KEYS[4], id) and not stands(KEYS[2], id, state[3]) then
    redis.call('HDEL', job, 'lease', 'waiting', 'waiting_reason', 'waiting_subjects', 'waiting_for',
      'waiting_until_ms')
    redis.call('HSET', job, 'status', 'queued', 'enqueued_at', iso(now_ms))
    enter_first(KEYS[2], id)
    queued[#queued + 1] = id
  end
end
if #queued > 0 then
  audited(KEYS[5], 'audit', 'failover-worker',
    'jobs', table.concat(queued, ' '))
  hint(ARGV[2], KEYS[2])
end
return {queued, ended}
