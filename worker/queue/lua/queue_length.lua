-- prelude: fair_queue
-- flags: no-writes
-- How many jobs a fair queue holds, and which job is next. The lists are not counted: there may be very many, and entries of
-- jobs that were cancelled or have expired stay in them until they are claimed.
--
-- KEYS  1 rq:queue:{queue}   2 failover:accepted:{queue}   3 rq:scheduled:{queue}   4 failover:leases:{queue}
-- Returns {number of jobs, id of the next job or false}
local LOOKED_AT = 20 -- entries of a list, and tenants, in search of the next job

local length = redis.call('ZCARD', KEYS[2])
if length == 0 then return {redis.call('LLEN', KEYS[1]), redis.call('LINDEX', KEYS[1], 0)} end -- another app's queue
length = length - redis.call('ZCARD', KEYS[3]) - redis.call('ZCARD', KEYS[4])

local lists = {KEYS[1]}
for _, tenant in ipairs(redis.call('LRANGE', ring_of(KEYS[1]), 0, LOOKED_AT - 1)) do
  if tenant ~= '' then lists[#lists + 1] = lane_of(KEYS[1], tenant) end
end
for _, list in ipairs(lists) do
  for _, id in ipairs(redis.call('LRANGE', list, 0, LOOKED_AT - 1)) do
    if redis.pcall('HGET', 'rq:job:' .. id, 'status') == 'queued' then return {math.max(0, length), id} end
  end
end
return {math.max(0, length), false}
