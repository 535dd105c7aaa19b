-- prelude: clock ledger_rows
-- flags: allow-oom
-- A month's sums; empty for a month without rows. Lost ones are counted again, one step a call.
--
-- KEYS  1-2 as in ledger_rows
-- ARGV  1-6 as in ledger_rows   7 month, '' for this one   8 rows a step
-- Returns the hash, or nil while they are counted: call it again.
local month = ARGV[7] ~= '' and ARGV[7] or this_month
if redis.call('EXISTS', SPENT .. month, LEDGER .. month, AMBIGUOUS .. month, FOLDED .. month) == 0 then return {} end
local key = sums_of(month, tonumber(ARGV[8]))
return key and redis.call('HGETALL', key) or nil
