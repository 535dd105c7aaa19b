-- Shared by every settle. Only the execution that holds the job's lease may settle the job; a resend changes nothing.
--
-- KEYS  1 rq:job:{id}   2 failover:leases:{queue}   3 rq:wip:{queue}   4 rq:execution:{id}:{execution}
--       5 rq:executions:{id}   6 failover:accepted:{queue}
-- ARGV  1 job id   2 execution id   the last one: what the history counts, '' for nothing
--
-- `type`, `key`: where the caller puts the job. It is checked with the other keys before the first write.
local function releases_lease(type, key)
  expect(type, key)
  expect('zset', KEYS[3], KEYS[6], KEYS[6] .. ':promised')
  local state = redis.call('HMGET', KEYS[1], 'status', 'settled') -- before the first write: it fails if the job is no hash
  local member = ARGV[1] .. ':' .. ARGV[2]
  if redis.call('ZREM', KEYS[2], member) == 0 then
    return state[2] == ARGV[2] and 'again' or 'fenced'
  end
  redis.call('ZREM', KEYS[3], member)
  redis.call('DEL', KEYS[4])
  redis.pcall('ZREM', KEYS[5], ARGV[2]) -- `pcall`: the job's own record for RQ's tools never fails the outcome
  if state[1] ~= 'started' then -- deleted or cancelled by one of RQ's tools
    if not lose_if_accepted(ARGV[1], KEYS[1], KEYS[6]) then leaves(KEYS[6], ARGV[1]) end
    return 'fenced'
  end
  happened(ARGV[#ARGV])
  return 'committed'
end

-- `unfinished`: the job may not have run. Otherwise it is no suspect any more: a worker that settles lives.
local function settles(type, key, unfinished)
  local verdict = releases_lease(type, key)
  if verdict ~= 'committed' then return verdict end
  if unfinished then
    redis.call('HDEL', KEYS[1], 'lease')
  else
    redis.call('HDEL', KEYS[1], 'lease', 'suspect', 'charged', 'begun', 'reaped')
  end
  redis.call('HSET', KEYS[1], 'settled', ARGV[2], 'worker_name', '')
  return verdict
end

