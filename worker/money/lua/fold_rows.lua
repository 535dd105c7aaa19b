-- prelude: clock ledger_sums
-- flags: allow-oom
-- Take the oldest closed rows of a month out of Redis, once they are written elsewhere or not wanted any more. Their sums stay.
--
-- KEYS  1-2 as in ledger_sums
-- ARGV  1-6 as in ledger_sums   7 month   8 the last stream id to fold   9 at most
-- Returns how many rows were folded; -1 while the month's sums are counted again, which needs the rows.
-- Invariant: folded sums + rows = all rows that were ever closed, to the micro-dollar.
local month = ARGV[7]
local key = sums_of(month)
if not key then return -1 end
local page, add, write = page_of(month, '-', ARGV[8], tonumber(ARGV[9])), adding(FOLDED .. month)
for _, entry in ipairs(page) do
  weigh(entry[2], 'spent', function(kind, scope, amount)
    local free = free_kind(scope)
    if free and redis.call('HEXISTS', key, kind .. ':' .. scope) == 0 then scope = 'rest:' .. free end
    add(kind, scope, amount)
  end)
end
if #page == 0 then return 0 end
write()
redis.call('EXPIRE', FOLDED .. month, KEEP_SUMS)
local ms, number = string.match(page[#page][1], '^(%d+)-(%d+)$')
redis.call('XTRIM', LEDGER .. month, 'MINID', ms .. '-' .. whole(tonumber(number) + 1))
return #page
