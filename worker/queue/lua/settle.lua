-- Settle one job that is not done.
--
-- KEYS  1 rq:job:{id}   2 failover:leases:{queue}   3 rq:wip:{queue}   4 rq:execution:{id}:{execution}
--       5 rq:executions:{id}   6 failover:accepted:{queue}
-- ARGV  1 job id   2 execution id   the last one: what the history counts, '' for nothing
--
-- `type`, `key`: where the caller puts the job. It is checked with the other keys before the first write. `unfinished`: the
-- job may not have run. Otherwise it is no suspect any more: a worker that settles lives.
local function settles(type, key, unfinished)
  expect(type, key)
  expect('zset', KEYS[3], KEYS[6], KEYS[6] .. ':promised')
  local state = redis.call('HMGET', KEYS[1], 'status', 'settled') -- before the first write: it fails if the job is no hash
  local at = {job = KEYS[1], leases = KEYS[2], executions = KEYS[5], accepted = KEYS[6]}
  local verdict, held = take_lease(at, ARGV[1], ARGV[2], state, ARGV[#ARGV])
  if held then
    redis.call('ZREM', KEYS[3], ARGV[1] .. ':' .. ARGV[2])
    redis.call('DEL', KEYS[4])
  end
  if verdict ~= 'committed' then return verdict end
  if unfinished then
    redis.call('HDEL', KEYS[1], 'lease')
  else
    redis.call('HDEL', KEYS[1], 'lease', 'suspect', 'charged', 'begun', 'reaped')
  end
  redis.call('HSET', KEYS[1], 'settled', ARGV[2], 'worker_name', '')
  return verdict
end
