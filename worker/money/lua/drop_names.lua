-- prelude: clock ledger_sums
-- flags: allow-oom
-- Count users and features without a cap together with the rest of their kind, because there are too many names.
--
-- KEYS  1-2 as in ledger_sums
-- ARGV  1-6 as in ledger_sums   7 month   8... scopes
-- Returns how many sums were moved; -1 while the month's sums are counted again.
if not sums_of(ARGV[7]) then return -1 end
local dropped = 0
for _, key in ipairs({SPENT .. ARGV[7], FOLDED .. ARGV[7]}) do
  for i = 8, #ARGV do
    local scope, free = ARGV[i], free_kind(ARGV[i])
    local held = redis.call('HMGET', SPENT .. ARGV[7], 'held:' .. scope, 'terms:' .. scope)
    if free and not held[1] and not held[2] then
      for _, kind in ipairs({'spent', 'ambiguous', 'tokens', 'held-tokens'}) do
        local amount = redis.call('HGET', key, kind .. ':' .. scope)
        if amount then
          redis.call('HINCRBY', key, kind .. ':rest:' .. free, amount)
          redis.call('HDEL', key, kind .. ':' .. scope)
          dropped = dropped + 1
        end
      end
    end
  end
end
return dropped
