-- flags: allow-oom
-- Store what was counted, and note up to where: only if nobody else has counted it meanwhile.
--
-- KEYS  1 failover:history:cursor   2 failover:happened   3... the documents
-- ARGV  1 the cursor as it was read ('' for none)   2 the new cursor   3 the last entry of KEYS 2 that is counted, ''
--       then for each document: its content, how long it is kept (s)
-- Returns 1 if it was stored.
-- Invariant: each entry and each ledger row is counted once.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
for i = 3, #KEYS do redis.call('SET', KEYS[i], ARGV[2 * i - 2], 'EX', ARGV[2 * i - 1]) end
if ARGV[3] ~= '' then
  local ms, number = string.match(ARGV[3], '^(%d+)-(%d+)$')
  redis.call('XTRIM', KEYS[2], 'MINID', ms .. '-' .. string.format('%.0f', tonumber(number) + 1))
end
return 1
