-- prelude: clock incident
-- flags: allow-oom
-- Resolve an incident.
--
-- KEYS  1 failover:incident:{id}   2 failover:incidents   3 failover:incidents:untold
-- ARGV  1 id   2 its key   3 when the problem ended (ms)   4 the last line of its story
-- Returns 1 if this call resolved it.
if redis.call('HEXISTS', KEYS[1], 'resolved_ms') == 1 or redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'resolved_ms', ARGV[3], 'closed_ms', now_ms)
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('SADD', KEYS[3], ARGV[1])
add_story(ARGV[1], ARGV[4])
return 1
