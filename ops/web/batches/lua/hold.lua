-- flags: allow-oom
-- Take a batch, or keep it: one runner has it at a time.
--
-- KEYS  1 failover:batch:{id}:runner
-- ARGV  1 the runner's token   2 seconds
-- Returns 1 if it is ours.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
