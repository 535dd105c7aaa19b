-- prelude: clock standing
-- flags: allow-oom
-- How the flags stand now, for one worker; its queues' running clocks follow them, whoever set them and however.
--
-- KEYS  1 pause_ai_tasks   2 rq:suspended   3 failover:pause   then for each queue: pause_ai_tasks:{q}   failover:stopped:{q}
--       then for each provider of the worker's routes: failover:paused-provider:{p}
-- ARGV  1 how many queues
-- Returns {1 if all is paused, 1 or 0 for each provider}
-- Invariant: a note goes with its flag, even if that ran out or was deleted by hand.
local closed, open = {}, false
local first_provider = 4 + 2 * tonumber(ARGV[1])
for i = first_provider, #KEYS do
  local paused = set(redis.call('GET', KEYS[i]))
  closed[#closed + 1] = paused and 1 or 0
  open = open or not paused
end
local all = set(redis.call('GET', KEYS[1])) or redis.call('EXISTS', KEYS[2]) == 1
for i = 4, first_provider - 1, 2 do
  stand(KEYS[i + 1], all or not open or set(redis.call('GET', KEYS[i])))
end
for _, flag in ipairs(redis.call('HKEYS', KEYS[3])) do
  if not set(redis.call('GET', flag)) then redis.call('HDEL', KEYS[3], flag) end
end
return {all and 1 or 0, unpack(closed)}
