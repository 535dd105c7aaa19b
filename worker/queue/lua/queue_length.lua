-- prelude: fair_queue
-- flags: no-writes
-- How many jobs a fair queue holds, and which job is next.
--
-- KEYS  1 rq:queue:{queue}
-- Returns {number of jobs, id of the next job or false}
local length, next_id = redis.call('LLEN', KEYS[1]), redis.call('LINDEX', KEYS[1], 0)
for _, tenant in ipairs(redis.call('LRANGE', ring_of(KEYS[1]), 0, -1)) do
  if tenant ~= '' then
    length = length + redis.call('LLEN', lane_of(KEYS[1], tenant))
    next_id = next_id or redis.call('LINDEX', lane_of(KEYS[1], tenant), 0)
  end
end
return {length, next_id}
