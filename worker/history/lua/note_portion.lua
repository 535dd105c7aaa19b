-- flags: allow-oom
-- Note the rows that are about to be written to the archive, unless others are being written or these have left Redis.
--
-- KEYS  1 failover:history:writing   2 failover:ledger:{month}
-- ARGV  1 the portion (JSON)   2 the stream id of its first row
-- Returns 1 if it is noted. Rows leave in their order: while the first one is there, all are.
if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then return 0 end
return redis.call('SET', KEYS[1], ARGV[1], 'NX') and 1 or 0
