-- Which flags are set, and the running clocks that stop and go with them.
--
-- A flag that is absent, empty or "0" is not set: any tool may write it.
local function set(flag)
  return flag and flag ~= '' and flag ~= '0'
end

-- Note on a queue's clock (failover:stopped:{queue}) whether it stands paused now.
local function stand(clock_key, paused)
  local since = tonumber(redis.call('HGET', clock_key, 'since') or '')
  if paused and not since then
    redis.call('HSET', clock_key, 'since', now_ms)
  elseif since and not paused then
    redis.call('HINCRBY', clock_key, 'total', now_ms - since)
    redis.call('HDEL', clock_key, 'since')
  end
end

-- The same for every queue there is. The keys: pause_ai_tasks, rq:suspended, rq:queues.
local function stand_all(pause, suspended, queues)
  local all = set(redis.call('GET', pause)) or redis.call('EXISTS', suspended) == 1
  for _, key in ipairs(redis.call('SMEMBERS', queues)) do
    local queue = string.sub(key, string.len('rq:queue:') + 1)
    stand('failover:stopped:' .. queue, all or set(redis.call('GET', pause .. ':' .. queue)))
  end
end

-- Set a flag, with its note, for `lasts` ms (0: until it is resumed). A pause without a reason takes none from one that
-- has it.
local function pause_flag(flag, notes, lasts, note, who, audit, control)
  local before = set(redis.call('GET', flag)) and redis.call('HGET', notes, flag)
  if before and cjson.decode(note).why == '' and cjson.decode(before).why ~= '' then return end
  if lasts > 0 then redis.call('SET', flag, '1', 'PX', lasts) else redis.call('SET', flag, '1') end
  redis.call('HSET', notes, flag, note)
  redis.call('XADD', audit, 'MAXLEN', '~', 100000, '*', 'action', 'pause', 'who', who, 'flag', flag, 'note', note)
  redis.call('PUBLISH', control, flag)
end

