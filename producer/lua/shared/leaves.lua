-- Remove a job that has ended, or is gone, from both sets: accepted, and the same jobs by the promised time (ms). Who waits for
-- it is woken (producer/wakeups.py); a Redis user without channels may not publish, and its scripts must not fail of it.
local function leaves(accepted, id)
  redis.call('ZREM', accepted, id)
  redis.call('ZREM', accepted .. ':promised', id)
  redis.pcall('PUBLISH', 'failover:job:' .. id, 'ended')
end

