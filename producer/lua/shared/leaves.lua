-- Remove jobs that have ended, or are gone, from both sets: accepted, and the same jobs by the promised time (ms). Who waits
-- for one is woken (producer/wakeups.py).
local function leaves(accepted, ...)
  redis.call('ZREM', accepted, ...)
  redis.call('ZREM', accepted .. ':promised', ...)
  for _, id in ipairs({...}) do hint('failover:job:' .. id, 'ended') end
end
