-- The indexes of dead letters: by time, and by reason, tenant and last route. Every score is the time of burial (ms).
-- The keys of a letter's indexes are made from its job hash, so that removing it needs no other data.
local function filed_under(dead, job)
  local facts = redis.call('HMGET', job, 'dead_reason', 'tenant', 'dead_route')
  local keys = {dead}
  for i, kind in ipairs({'reason', 'tenant', 'route'}) do
    if facts[i] then keys[#keys + 1] = dead .. ':' .. kind .. ':' .. facts[i] end
  end
  return keys
end

local NEWS_FIRST = 10 -- ids of dead letters for the message
-- When the open incident of dead letters began (ms), or the counts that are in no incident yet; without both, never.
local function counted_since(news, queue)
  local id = redis.pcall('HGET', 'failover:incidents', 'dead_letters||' .. queue)
  local since = type(id) == 'string' and redis.pcall('HGET', 'failover:incident:' .. id, 'opened_ms')
  if type(since) ~= 'string' then since = redis.pcall('HGET', news, 'since_ms') end
  return type(since) == 'string' and tonumber(since) or math.huge
end

local function tell_of(dead, id, job)
  local queue = string.sub(dead, string.len('failover:dead:') + 1)
  local news = 'failover:news:' .. queue
  local facts = redis.call('HMGET', job, 'dead_reason', 'tenant', 'dead_detail', 'died_ms')
  redis.call('HSET', job, 'died_ms', now_ms)
  event('job.dead', id, facts[2])
  if facts[4] and tonumber(facts[4]) >= counted_since(news, queue) then -- requeued, and the same incident has it already
    count(news, 'dead:again', 1)
    return
  end
  count(news, 'dead', 1)
  redis.pcall('HSETNX', news, 'since_ms', now_ms)
  redis.pcall('HSETNX', news, 'example', string.sub(facts[3] or '', 1, 300))
  count(news, 'dead:reason:' .. (facts[1] or '?'), 1)
  count(news, 'dead:tenant:' .. (facts[2] or '?'), 1)
  local first = redis.pcall('LLEN', news .. ':first')
  if type(first) == 'number' and first < NEWS_FIRST then redis.call('RPUSH', news .. ':first', id) end
end

local function file(dead, id, job, ms)
  tell_of(dead, id, job)
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

