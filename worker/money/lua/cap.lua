-- prelude: clock audit_trail
-- flags: allow-oom
-- Set an operator's cap over the one of budgets.yaml. Workers read it within a second, and wake jobs that wait for budget.
--
-- KEYS  1 failover:budgets   2 failover:ladder:{month}   3 failover:audit   4 failover:spent:{month}
-- ARGV  1 scope   2 the cap (JSON), '' to remove it   3 who
-- Returns 1 if something changed.
local before = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if before == ARGV[2] then return 0 end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('HDEL', KEYS[2], ARGV[1]) -- the next call records it again
redis.call('HDEL', KEYS[4], 'terms:' .. ARGV[1]) -- calls that run under the old cap do not record it
audited(KEYS[3], 'cap', ARGV[3], 'scope', ARGV[1],
  'cap', ARGV[2])
return 1
