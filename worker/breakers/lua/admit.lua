-- prelude: clock hint breaker
-- flags: allow-oom
-- Grant the permit for one probe of a half-open route, under a lease.
--
-- KEYS  1 failover:breaker:{route}
-- ARGV  1 route   2 token   3 lease (ms)   4 channel
-- Returns {1 if this token may probe, the breaker as in `as_json`}
-- Invariant: at most one probe of a route at a time, for all workers together; a resend of the token is granted again.
local breaker = read(KEYS[1])
local held = breaker.probe ~= '' and breaker.probe_until_ms > now_ms
local granted = breaker.state == 'open' and breaker.opens_ms <= now_ms and breaker.rests_until_ms <= now_ms
  and (not held or breaker.probe == ARGV[2])
if granted then
  breaker.probe, breaker.probe_until_ms = ARGV[2], now_ms + tonumber(ARGV[3])
  write(KEYS[1], ARGV[1], breaker, ARGV[4])
end
return {granted and 1 or 0, as_json(ARGV[1], breaker)}
