-- prelude: clock
-- flags: allow-oom
-- Heartbeat: extend the leases of all executions of one worker.
--
-- KEYS  1 failover:leases:{queue}
-- ARGV  1 lease (ms)   2.. {job}:{execution}
-- Returns the members that are not leased any more: this worker has lost these jobs.
-- Invariant: a lease that was reaped never comes back.
local lost = {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], 'XX', now_ms + tonumber(ARGV[1]), ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
