-- Jobs that wait for a time at which something may be open again, and need not wait any longer.

-- Make every parked job of the queue due now for which `matches(why it waits)`. A scheduled set beyond this size is left to
-- its times.
local function wake(queue, matches)
  local scheduled = 'rq:scheduled:' .. queue
  for _, id in ipairs(redis.call('ZRANGE', scheduled, 0, 4999)) do
    local why = redis.pcall('HGET', 'rq:job:' .. id, 'waiting_for')
    if type(why) == 'string' and matches(why) then
      redis.call('ZADD', scheduled, now_ms / 1000, id)
      redis.call('HSET', 'rq:job:' .. id, 'waiting_until_ms', now_ms)
    end
  end
end
