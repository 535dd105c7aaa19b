-- prelude: clock hint key_types happened audit_trail leaves lost ends event count dead_letters fair_queue accepted_order
-- flags: allow-oom
-- Last safety check of accepted jobs: those that seem to be in no list, lease or schedule are checked again, and queued. Those
-- whose data is gone are lost. Those that RQ's own worker or tools have failed become dead letters of ours.
--
-- KEYS  1 failover:accepted:{queue}   2 rq:queue:{queue}   3 failover:leases:{queue}   4 rq:scheduled:{queue}
--       5 failover:audit   6 rq:failed:{queue}   7 failover:dead:{queue}
-- ARGV  1 rq:job:   2 wake channel   3 rq:results:   4 keep a dead letter (s)   5.. ids of accepted jobs
-- Returns {ids queued again, ids lost, ids that RQ failed, ids that have ended}
-- Invariant: a job that is in the queue, a lease or the schedule is not changed. So the worker's list may be outdated.
expect('list', KEYS[2])
expect('zset', KEYS[1] .. ':promised')
expect('stream', KEYS[5])
expect('zset', KEYS[6], KEYS[7])
local queued, lost, failed, ended = {}, {}, {}, {}
for i = 5, #ARGV do
  local id = ARGV[i]
  local job = ARGV[1] .. id
  local state = redis.pcall('HMGET', job, 'status', 'lease', 'tenant', 'dead_reason')
  local live = state[1] == 'queued' or state[1] == 'started' or state[1] == 'scheduled'
  if not redis.call('ZSCORE', KEYS[1], id) then
    -- it ended after the worker had read the lists
  elseif lose_if_accepted(id, job, KEYS[1]) then
    lost[#lost + 1] = id
  elseif state[1] == 'failed' and not state[4] then
    local detail = 'an `rq` worker or tool failed it, not failover-worker'
    unfile(KEYS[7], id, job)
    redis.call('HSET', job, 'dead_reason', 'failed_by_rq', 'dead_detail', detail, 'worker_name', '')
    redis.call('HDEL', job, 'lease')
    redis.call('ZADD', KEYS[6], math.floor(now_ms / 1000) + tonumber(ARGV[4]), id)
    file(KEYS[7], id, job, now_ms)
    ends(id, job, KEYS[1], ARGV[3] .. id, ARGV[4])
    happened_to(job, 'dead', 'failed_by_rq')
    failed[#failed + 1] = id
  elseif not live then
    leaves(KEYS[1], id)
    ended[#ended + 1] = id
  elseif not (state[2] and redis.call('ZSCORE', KEYS[3], id .. ':' .. state[2]))
    and not redis.call('ZSCORE', KEYS[4], id) and not stands(KEYS[2], id, state[3]) then
    redis.call('HDEL', job, 'lease', 'waiting', 'waiting_reason', 'waiting_subjects', 'waiting_for',
      'waiting_until_ms')
    redis.call('HSET', job, 'status', 'queued', 'enqueued_at', iso(now_ms))
    queued[#queued + 1] = id
  end
end
for _, id in ipairs(by_acceptance(queued, true)) do enter_first(KEYS[2], id) end
if #queued > 0 then
  audited(KEYS[5], 'audit', 'failover-worker',
    'jobs', table.concat(queued, ' '))
  hint(ARGV[2], KEYS[2])
end
return {queued, lost, failed, ended}
