-- Add a part to a file that is uploaded. An unfinished file is gone after a while.
--
-- KEYS  1 failover:file:{id}:parts   2 failover:files:kept   3 failover:files:sizes
-- ARGV  1 number of the part, from 0   2 the part   3 file id   4 bytes that it takes in Redis   5 when it is gone (Unix s)
-- Returns 1; a resend changes nothing.
if redis.call('LLEN', KEYS[1]) == tonumber(ARGV[1]) then
  redis.call('RPUSH', KEYS[1], ARGV[2])
  redis.call('EXPIREAT', KEYS[1], ARGV[5])
  redis.call('ZADD', KEYS[2], ARGV[5], ARGV[3])
  redis.call('HINCRBY', KEYS[3], ARGV[3], ARGV[4])
end
return 1
