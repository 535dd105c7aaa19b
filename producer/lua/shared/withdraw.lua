-- Remove a job from its queue, schedule, lease or dead letters. An outcome that arrives later is fenced.
--
-- KEYS  1 rq:job:{id}   2 rq:queue:{queue}   3 rq:scheduled:{queue}   4 failover:leases:{queue}   5 rq:wip:{queue}
--       6 rq:failed:{queue}   7 failover:accepted:{queue}   8 failover:dead:{queue}   9 rq:results:{id}
--       10 failover:audit
-- ARGV  1 job id   2 rq:execution:   3 rq:executions:
local function expect_withdrawn()
  expect('hash', KEYS[1])
  expect('list', KEYS[2])
  expect('zset', KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[7] .. ':promised', KEYS[8])
  expect('stream', KEYS[10])
end

local function withdraw()
  local id, execution = ARGV[1], redis.call('HGET', KEYS[1], 'lease')
  if execution then
    local member = id .. ':' .. execution
    redis.call('ZREM', KEYS[4], member)
    redis.call('ZREM', KEYS[5], member)
    redis.call('DEL', ARGV[2] .. member)
    redis.call('ZREM', ARGV[3] .. id, execution)
  end
  local state = redis.call('HMGET', KEYS[1], 'status', 'tenant')
  if state[1] == 'queued' then leave(KEYS[2], id, state[2]) end
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[6], id)
  unfile(KEYS[8], id, KEYS[1])
  redis.call('HDEL', KEYS[1], 'lease', 'settled', 'waiting', 'waiting_reason', 'waiting_subjects', 'waiting_for',
      'waiting_until_ms')
  redis.call('HSET', KEYS[1], 'ended_at', iso(now_ms), 'worker_name', '')
end

