-- prelude: clock
-- Count one job against a tenant's rate and burst (generic cell rate algorithm: it stores one time, no counters).
--
-- KEYS  1 failover:rate:{tenant}
-- ARGV  1 ms per job   2 burst
-- Returns {0 if the job is accepted, else the ms until the next one is, how many more would be accepted now, ms until all of
--         the burst is free again}
-- Invariant: in any t ms at most burst + t / (ms per job) jobs are accepted.
local each, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or '') or 0, now_ms)
local wait = due - (burst - 1) * each - now_ms
if wait > 0 then return {math.ceil(wait), 0, math.ceil(due - now_ms)} end
due = due + each
redis.call('SET', KEYS[1], string.format('%.3f', due), 'PX', math.ceil(due - now_ms))
return {0, math.floor(burst - (due - now_ms) / each), math.ceil(due - now_ms)}
