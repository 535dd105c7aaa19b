-- flags: allow-oom
-- Move a batch from one state to another.
--
-- KEYS  1 failover:batch:{id}
-- ARGV  1 states that it may have, between blanks   2.. field, value, ...
-- Returns 1 if it was moved, 0 if it is in another state.
local status = redis.call('HGET', KEYS[1], 'status')
if not status or not string.find(ARGV[1], ' ' .. status .. ' ', 1, true) then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
