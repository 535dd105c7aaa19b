-- Remove a job that has ended, or is gone, from both sets: accepted, and the same jobs by the promised time (ms). Who waits for
-- it is woken (producer/wakeups.py).
local function leaves(accepted, id)
  redis.call('ZREM', accepted, id)
  redis.call('ZREM', accepted .. ':promised', id)
  hint('failover:job:' .. id, 'ended')
end

