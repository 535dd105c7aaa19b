-- prelude: clock ledger_sums
-- flags: allow-oom
-- Make sure that a month's sums are there. Lost ones are counted again, one step a call.
--
-- KEYS  1-2 as in ledger_sums
-- ARGV  1-6 as in ledger_sums   7 month, '' for this one   8 rows a step
-- Returns 1, or 0 while they are counted: call it again.
local month = ARGV[7] ~= '' and ARGV[7] or this_month
if redis.call('EXISTS', SPENT .. month, LEDGER .. month, AMBIGUOUS .. month, FOLDED .. month) == 0 then return 1 end
return sums_of(month, tonumber(ARGV[8])) and 1 or 0
