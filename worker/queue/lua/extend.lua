-- prelude: clock
-- flags: allow-oom
-- Heartbeat: extend the leases of all executions of one worker.
--
-- KEYS  1 failover:leases:{queue}   2 failover:claim:{token} of a claim whose reply has not arrived, if there is one
-- ARGV  1 lease (ms)   2 rq:job:   3.. {job}:{execution}
-- Returns the members that are not leased any more: this worker has lost these jobs.
-- Invariant: a lease that was reaped never comes back. A job that was reaped from this worker is no suspect: it lives.
local lost = {}
local unanswered = KEYS[2] and redis.call('GET', KEYS[2])
if unanswered then
  redis.call('EXPIRE', KEYS[2], 60)
  for _, claim in ipairs(cjson.decode(unanswered)) do
    if KEYS[1] == 'failover:leases:' .. claim[3] then
      redis.call('ZADD', KEYS[1], 'XX', now_ms + tonumber(ARGV[1]), claim[1] .. ':' .. claim[2])
    end
  end
end
for i = 3, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], 'XX', now_ms + tonumber(ARGV[1]), ARGV[i])
  else
    local id, execution = string.match(ARGV[i], '^(.*):([^:]*)$')
    if redis.pcall('HGET', ARGV[2] .. id, 'reaped') == execution then
      redis.call('HDEL', ARGV[2] .. id, 'suspect', 'charged', 'begun', 'reaped')
    end
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
