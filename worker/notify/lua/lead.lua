-- flags: allow-oom
-- Take, renew or release the lease of the notifier. A worker with channels takes the lease from one without channels.
--
-- KEYS  1 failover:notifier
-- ARGV  1 worker   2 lease (ms; 0: release it)   3 '1' if it has channels
-- Returns 1 if this worker holds the lease now.
local mine = (ARGV[3] == '1' and '' or '-') .. ARGV[1]
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= mine and not (ARGV[3] == '1' and string.sub(holder, 1, 1) == '-') then return 0 end
if ARGV[2] == '0' then
  if holder == mine then redis.call('DEL', KEYS[1]) end
  return 0
end
redis.call('SET', KEYS[1], mine, 'PX', tonumber(ARGV[2]))
return 1
