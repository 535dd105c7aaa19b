-- flags: allow-oom
-- Take a lease, or keep it: one holder has it at a time.
--
-- KEYS  1 the lease
-- ARGV  1 the holder   2 ms
-- Returns 1 if it is the holder's now, else 0.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
