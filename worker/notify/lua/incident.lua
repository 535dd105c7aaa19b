-- The open incident of a kind, subject and queue, or a new one; and lines for its story.
--
-- failover:incidents (key -> id), failover:incidents:all (id by time opened), failover:incidents:number, failover:incident:{id}
local KEEP_SECONDS = 400 * 86400
local function open_incident(kind, subject, queue, opened_ms)
  local key = kind .. '|' .. subject .. '|' .. queue
  local id = redis.call('HGET', 'failover:incidents', key)
  if id and redis.call('EXISTS', 'failover:incident:' .. id) == 1 then return id, false end
  id = tostring(redis.call('INCR', 'failover:incidents:number'))
  redis.call('HSET', 'failover:incidents', key, id)
  redis.call('ZADD', 'failover:incidents:all', opened_ms, id)
  redis.call('HSET', 'failover:incident:' .. id, 'kind', kind, 'subject', subject, 'queue', queue, 'opened_ms', opened_ms)
  redis.call('EXPIRE', 'failover:incident:' .. id, KEEP_SECONDS)
  return id, true
end

local function add_story(id, text, at_ms)
  local key = 'failover:incident:' .. id .. ':story'
  redis.call('RPUSH', key, cjson.encode({at_ms = at_ms or now_ms, text = text}))
  redis.call('LTRIM', key, 0, 1999)
  redis.call('EXPIRE', key, KEEP_SECONDS)
end

