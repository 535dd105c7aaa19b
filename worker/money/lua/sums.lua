-- prelude: clock ledger_rows
-- flags: allow-oom
-- A month's sums, counted again if they were lost; empty for a month without rows.
--
-- KEYS  1-2 as in ledger_rows
-- ARGV  1-6 as in ledger_rows   7 month, '' for this one
local month = ARGV[7] ~= '' and ARGV[7] or this_month
if redis.call('EXISTS', SPENT .. month, LEDGER .. month, AMBIGUOUS .. month) == 0 then return {} end
return redis.call('HGETALL', sums_of(month))
