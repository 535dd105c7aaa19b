-- prelude: clock parked
-- flags: allow-oom
-- What operators set over the caps of budgets.yaml. Jobs that wait for money of the scope ask again once every worker knows.
--
-- KEYS  1 failover:budgets   2 failover:ladder:{month}   3 rq:queues   4 failover:audit
-- ARGV  1 scope   2 the cap (JSON), '' to take it back   3 who   4 wake channel
-- Returns 1 if something changed.
local HEARD_MS = 2000 -- workers look every second (worker/allowance.py)

local before = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if before == ARGV[2] then return 0 end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('HDEL', KEYS[2], ARGV[1]) -- the next call tells how far it is
for _, key in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  wake(string.sub(key, string.len('rq:queue:') + 1), function(why)
    return string.sub(why, 1, #ARGV[1] + 1) == ARGV[1] .. ' '
  end, HEARD_MS)
end
redis.call('XADD', KEYS[4], 'MAXLEN', '~', 100000, '*', 'action', 'cap', 'who', ARGV[3], 'scope', ARGV[1],
  'cap', ARGV[2])
redis.call('PUBLISH', ARGV[4], 'cap')
return 1
