-- prelude: clock ledger_sums
-- flags: allow-oom
-- Take ambiguous rows of a month out of Redis. Their sums stay, as what may have been billed.
--
-- KEYS  1-2 as in ledger_sums
-- ARGV  1-6 as in ledger_sums   7 month   8... row ids
-- Returns how many rows were folded; -1 while the month's sums are counted again, which needs the rows.
local month = ARGV[7]
if not sums_of(month) then return -1 end
local folded, add, write = 0, adding(FOLDED .. month)
for i = 8, #ARGV do
  local raw = redis.call('HGET', AMBIGUOUS .. month, ARGV[i])
  local row = raw and read(raw)
  if is_row(row) then weigh(row, 'ambiguous', add) end
  folded = folded + redis.call('HDEL', AMBIGUOUS .. month, ARGV[i])
end
write()
redis.call('EXPIRE', FOLDED .. month, KEEP_SUMS)
return folded
