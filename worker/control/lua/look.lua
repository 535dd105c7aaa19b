-- prelude: clock hint audit_trail running_clock pause_flags
-- flags: allow-oom
-- Read all flags for one worker, and update its queues' running clocks by them, whoever set the flags.
--
-- KEYS  1 pause_ai_tasks   2 rq:suspended   3 failover:pause   then for each queue: pause_ai_tasks:{q}   failover:stopped:{q}
--       then for each provider of the worker's routes: failover:paused-provider:{p}   then for each route: failover:disabled:{r}
-- ARGV  1 how many queues   2 how many providers
-- Returns {1 or 0 for everything, for each queue, for each provider, for each route}
-- Invariant: a note is removed with its flag, also when the flag expired or was deleted by hand.
local queues = tonumber(ARGV[1])
local flags, _, closed = flags_of(4, 2, queues, 4 + 2 * queues, tonumber(ARGV[2]))
for q = 1, queues do
  local clock_key = KEYS[3 + 2 * q]
  local held, ends_ms = held_by({KEYS[1], KEYS[2 + 2 * q], KEYS[2]})
  stand(clock_key, held or closed, held and ends_ms or 0, closed and not held)
  if not held and not closed then redis.call('HSET', clock_key, 'served_ms', now_ms) end
end
for _, flag in ipairs(redis.call('HKEYS', KEYS[3])) do
  if not set(redis.call('GET', flag)) then
    redis.call('HDEL', KEYS[3], flag)
    stand_tenant(flag)
  end
end
return flags
