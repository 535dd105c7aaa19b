-- The indexes of dead letters: by time, and by reason, tenant and last route, all scored with the time of burial (ms).
-- What a dead letter is filed under stands in its hash, so that taking it out needs nothing else.
local function filed_under(dead, job)
  local facts = redis.call('HMGET', job, 'dead_reason', 'tenant', 'dead_route')
  local keys = {dead}
  for i, kind in ipairs({'reason', 'tenant', 'route'}) do
    if facts[i] then keys[#keys + 1] = dead .. ':' .. kind .. ':' .. facts[i] end
  end
  return keys
end

local function file(dead, id, job, ms)
  for i, key in ipairs(filed_under(dead, job)) do
    redis.call('ZADD', key, ms, id)
    if i > 1 then redis.call('SADD', dead .. ':indexes', key) end
  end
end

local function unfile(dead, id, job)
  for i, key in ipairs(filed_under(dead, job)) do
    redis.call('ZREM', key, id)
    if i > 1 and redis.call('EXISTS', key) == 0 then redis.call('SREM', dead .. ':indexes', key) end
  end
end

