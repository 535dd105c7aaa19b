-- prelude: clock incident
-- flags: allow-oom
-- What was counted since the last time goes into incidents, which are opened for it.
--
-- KEYS  1 failover:news:{queue}   2 failover:news:{queue}:first
-- ARGV  1 queue   2.. ids of open incidents to which saved jobs are credited
-- Returns how many dead letters.
-- Invariant: each job is counted in one incident, whoever folds and however often.
local news = redis.call('HGETALL', KEYS[1])
if #news == 0 then return 0 end
local ids, dead = {}, 0
local function incident(kind)
  if not ids[kind] then
    local id, new = open_incident(kind, '', ARGV[1], now_ms)
    if new then add_story(id, kind == 'dead_letters' and 'the first dead letters' or 'the first degraded answers') end
    redis.call('HSET', 'failover:incident:' .. id, 'last_ms', now_ms)
    ids[kind] = id
  end
  return 'failover:incident:' .. ids[kind]
end

for i = 1, #news, 2 do
  local field, more = news[i], tonumber(news[i + 1])
  if field == 'saved' then
    for j = 2, #ARGV do redis.call('HINCRBY', 'failover:incident:' .. ARGV[j], 'saved', more) end
  elseif string.sub(field, 1, 4) == 'dead' then
    if field == 'dead' then dead = more end
    redis.call('HINCRBY', incident('dead_letters'), field, more)
  else
    redis.call('HINCRBY', incident('degraded'), field, more)
  end
end
local first = redis.call('LRANGE', KEYS[2], 0, -1)
if ids.dead_letters and #first > 0 then
  local key = incident('dead_letters')
  local known = redis.call('HGET', key, 'first')
  if not known then redis.call('HSET', key, 'first', table.concat(first, ' ')) end
end
if dead > 0 then -- an outage that lasts is credited with its dead as well
  for j = 2, #ARGV do redis.call('HINCRBY', 'failover:incident:' .. ARGV[j], 'dead', dead) end
end
redis.call('DEL', KEYS[1], KEYS[2])
return dead
