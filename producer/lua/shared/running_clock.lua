-- A queue's running clock is Redis TIME minus the time for which the queue was paused, so that a pause does not shorten the
-- life of a job. failover:stopped:{queue} holds total (ms, of the pauses that are over); for a pause that lasts, since (ms),
-- ends_ms (when its flag expires, 0: never) and by_providers (1: paused only because all providers of its workers are); and
-- served_ms, when a worker last saw the queue running.
local SERVED_MS = 3000 -- so long after one worker served the queue, another whose providers are all paused cannot stop its clock

local function set(flag) -- absent, empty and "0" are not set: any tool may write a flag
  return flag and flag ~= '' and flag ~= '0'
end

local function stopped_ms(key)
  local state = redis.call('HMGET', key, 'total', 'since', 'ends_ms')
  local since, ends = tonumber(state[2] or ''), tonumber(state[3] or '') or 0
  local until_ms = ends > 0 and math.min(ends, now_ms) or now_ms
  return (tonumber(state[1] or '') or 0) + (since and math.max(0, until_ms - since) or 0)
end

-- How long a tenant was paused since one of its jobs recorded `recorded` (its tenant_stopped_ms): the job lives so much longer.
-- While its queue is paused too, the time counts twice: the job lives longer, never shorter. `read`: in place of stopped_ms.
local function tenant_stopped_ms(tenant, recorded, read)
  if not tenant or tenant == '' then return 0 end
  return math.max(0, (read or stopped_ms)('failover:stopped-tenant:' .. tenant) - (tonumber(recorded or '') or 0))
end

-- Whether any of the flags is set, and when the last of them expires (ms; 0: never).
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

-- Stop a queue's clock if it is paused now (held), else start it.
local function stand(key, held, ends_ms, by_providers)
  local state = redis.call('HMGET', key, 'since', 'ends_ms', 'served_ms')
  local since, ended, served = tonumber(state[1] or ''), tonumber(state[2] or '') or 0, tonumber(state[3] or '')
  local function over(at)
    redis.call('HINCRBY', key, 'total', math.max(0, at - since))
    redis.call('HDEL', key, 'since', 'ends_ms', 'by_providers')
    redis.call('HSET', key, 'served_ms', at)
  end
  if since and ended > 0 and ended <= now_ms then -- the flag expired, and no worker saw it
    over(ended)
    since, served = nil, ended
  end
  if held and by_providers and served and now_ms - served < SERVED_MS then return end
  if held then
    local seen_ms = math.max(served or now_ms, now_ms - 2 * SERVED_MS) -- earlier than that, perhaps no worker ran
    if not since then redis.call('HSET', key, 'since', by_providers and seen_ms or now_ms) end
    redis.call('HSET', key, 'ends_ms', ends_ms, 'by_providers', by_providers and 1 or 0)
  elseif since then
    over(now_ms)
  end
end

