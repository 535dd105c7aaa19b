-- A queue's running clock is Redis TIME less the time for which the queue has stood paused, so that no pause burns the
-- expiry of a job. failover:stopped:{queue} holds total (ms, of the pauses that are over) and since (ms, of one that lasts).
local function stopped_ms(key)
  local told = redis.call('HMGET', key, 'total', 'since')
  return (tonumber(told[1] or '') or 0) + now_ms - (tonumber(told[2] or '') or now_ms)
end

