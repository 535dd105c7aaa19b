-- prelude: fair_queue
-- How many jobs wait in a queue's line, and which is next.
--
-- KEYS  1 rq:queue:{queue}
-- Returns {how many, id of the next one or false}
local length, next_id = redis.call('LLEN', KEYS[1]), redis.call('LINDEX', KEYS[1], 0)
for _, tenant in ipairs(redis.call('LRANGE', ring_of(KEYS[1]), 0, -1)) do
  if tenant ~= '' then
    length = length + redis.call('LLEN', lane_of(KEYS[1], tenant))
    next_id = next_id or redis.call('LINDEX', lane_of(KEYS[1], tenant), 0)
  end
end
return {length, next_id}
