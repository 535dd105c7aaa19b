-- prelude: clock wake_parked
-- flags: allow-oom
-- Jobs that wait for money ask again now: a cap has changed.
--
-- KEYS  1 rq:queues
-- ARGV  1 what stands in what they wait for, in words
-- Returns nothing. Again: no harm.
for _, key in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  wake(string.sub(key, string.len('rq:queue:') + 1), function(why)
    return string.find(why, ARGV[1], 1, true)
  end)
end
