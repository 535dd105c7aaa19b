-- prelude: clock parked
-- flags: allow-oom
-- Jobs that wait for money ask again now: a cap has changed.
--
-- KEYS  1 rq:queues
-- ARGV  1 how what they wait for ends, in words
-- Returns nothing. Again: no harm.
for _, key in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  wake(string.sub(key, string.len('rq:queue:') + 1), function(why)
    return string.sub(why, -#ARGV[1]) == ARGV[1]
  end)
end
