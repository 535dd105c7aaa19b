-- Be, or stay, the worker that tells people. One that has channels takes over from one that has none.
--
-- KEYS  1 failover:notifier
-- ARGV  1 worker   2 lease (ms; 0: give it back)   3 '1' if it has channels
-- Returns 1 if it is this worker now.
local mine = (ARGV[3] == '1' and '' or '-') .. ARGV[1]
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= mine and not (ARGV[3] == '1' and string.sub(holder, 1, 1) == '-') then return 0 end
if ARGV[2] == '0' then
  if holder == mine then redis.call('DEL', KEYS[1]) end
  return 0
end
redis.call('SET', KEYS[1], mine, 'PX', tonumber(ARGV[2]))
return 1
