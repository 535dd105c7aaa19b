-- prelude: clock audit_trail
-- flags: allow-oom
-- Create or revoke a token of the web process.
--
-- KEYS  1 failover:tokens   2 failover:audit
-- ARGV  1 name   2 the token without its secret (JSON); '' revokes it   3 who   4 how many there may be   5 version
-- Returns 'done' | 'taken' (the name has another token) | 'unknown' | 'full'
-- Invariant: the field '' changes with every change of the others, so a reader sees from it alone whether it must read again.
local known = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[2] == '' then
  if not known then return 'unknown' end
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  if known then return known == ARGV[2] and 'done' or 'taken' end -- the same again is a resend
  if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[4]) then return 'full' end
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('HSET', KEYS[1], '', ARGV[5])
audited(KEYS[2], ARGV[2] == '' and 'revoke token' or 'create token', ARGV[3], 'token', ARGV[1])
return 'done'
