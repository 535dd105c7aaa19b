-- prelude: clock
-- One job of a tenant, by its rate and burst (the generic cell rate algorithm: one time, no counters).
--
-- KEYS  1 failover:rate:{tenant}
-- ARGV  1 ms a job   2 burst
-- Returns 0, or the ms after which the next one is accepted.
-- Invariant: over any time t at most burst + t / ms a job are accepted.
local each, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or '') or 0, now_ms)
local wait = due - (burst - 1) * each - now_ms
if wait > 0 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.3f', due + each), 'PX', math.ceil(due + each - now_ms))
return 0
