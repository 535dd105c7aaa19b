-- Be, or stay, the worker that tells people.
--
-- KEYS  1 failover:notifier
-- ARGV  1 worker   2 lease (ms; 0: give it back)
-- Returns 1 if it is this worker now.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', tonumber(ARGV[2]))
return 1
