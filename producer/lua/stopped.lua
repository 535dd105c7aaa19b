-- A queue's running clock is Redis TIME less the time for which the queue has stood paused, so that no pause burns the
-- expiry of a job. failover:stopped:{queue} holds total (ms, of the pauses that are over) and, of one that lasts, since (ms),
-- ends_ms (of its flag's own end, 0: none), by_providers (1: it stands only as its workers' providers do); and served_ms,
-- when a worker last saw it go.
local SERVED_MS = 3000 -- a queue that a worker saw go is not stood by another, whose providers are all paused

local function set(flag) -- absent, empty and "0" are not set: any tool may write a flag
  return flag and flag ~= '' and flag ~= '0'
end

local function stopped_ms(key)
  local told = redis.call('HMGET', key, 'total', 'since')
  return (tonumber(told[1] or '') or 0) + now_ms - (tonumber(told[2] or '') or now_ms)
end

-- Whether any of the flags is set, and when the last of them ends by itself (ms; 0: it does not).
local function held_by(flags)
  local held, ends_ms = false, 0
  for _, flag in ipairs(flags) do
    if set(redis.call('GET', flag)) then
      local left = redis.call('PTTL', flag)
      if held and ends_ms == 0 or left == -1 then ends_ms = 0 else ends_ms = math.max(ends_ms, now_ms + left) end
      held = true
    end
  end
  return held, ends_ms
end

-- Note on a queue's clock whether it stands paused now.
local function stand(key, held, ends_ms, by_providers)
  local told = redis.call('HMGET', key, 'since', 'ends_ms', 'served_ms')
  local since, ended, served = tonumber(told[1] or ''), tonumber(told[2] or '') or 0, tonumber(told[3] or '')
  if held and by_providers and served and now_ms - served < SERVED_MS then return end
  if held then
    if not since then redis.call('HSET', key, 'since', by_providers and served or now_ms) end
    redis.call('HSET', key, 'ends_ms', ends_ms, 'by_providers', by_providers and 1 or 0)
  elseif since then
    if ended == 0 or ended > now_ms then ended = now_ms end
    redis.call('HINCRBY', key, 'total', math.max(0, ended - since))
    redis.call('HDEL', key, 'since', 'ends_ms', 'by_providers')
    redis.call('HSET', key, 'served_ms', now_ms)
  end
end

