-- prelude: clock hint audit_trail breaker accepted_order wake_parked
-- flags: allow-oom
-- Close a route's breaker and end its cooldown at once: an operator says that the route works again.
--
-- KEYS  1 failover:breaker:{route}   2 failover:audit   3 rq:queues
-- ARGV  1 route   2 channel   3 who
-- Returns {state before: closed | open, reason of the cooldown or ''}
-- Invariant: results of attempts that were admitted before do not count; jobs that wait for a route become due now.
local breaker = read(KEYS[1])
local before = {breaker.state, breaker.rests_until_ms > now_ms and breaker.rests_for or ''}
breaker.state, breaker.epoch, breaker.failures, breaker.streak = 'closed', breaker.epoch + 1, 0, ''
breaker.successes, breaker.probe, breaker.opens_ms, breaker.cooldown_ms = 0, '', 0, 0
breaker.rests_until_ms, breaker.rests_for = 0, ''
write(KEYS[1], ARGV[1], breaker, ARGV[2])
audited(KEYS[2], 'restore', ARGV[3], 'route', ARGV[1])
wake_parked(KEYS[3], {'route', 'able_route', 'slow_route', 'pinned_route'})
return before
