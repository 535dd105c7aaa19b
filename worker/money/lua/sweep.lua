-- prelude: clock ledger_sums ledger_rows
-- flags: allow-oom
-- Close the rows whose execution is gone: a reservation is released, a dispatched call may have been billed (ambiguous).
--
-- KEYS  1-2 as in ledger_sums
-- ARGV  1-6 as in ledger_sums   7 failover:leases:   8 age from which a row is looked at (ms)   9 at most
-- Returns {rows released, rows that are ambiguous now, 1 while the month's sums are counted again}
-- Invariant: a row is closed once; a row whose execution still holds its lease stays.
local released, ambiguous = 0, 0
local done, why = pcall(function()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms - tonumber(ARGV[8]), 'LIMIT', 0, tonumber(ARGV[9]))) do
    local raw = running_row(id)
    local row = raw and read(raw)
    if not (row and row.queue and row.lease) then -- closed already, or overwritten
      redis.call('ZREM', KEYS[2], id)
    elseif redis.call('ZSCORE', ARGV[7] .. row.queue, row.lease) then
      redis.call('ZADD', KEYS[2], now_ms, id)
    elseif row.state == 'reserved' then
      close(row, 'released', 0, 0, 0)
      released = released + 1
    else
      close(row, 'ambiguous', row.micros, 0, 0)
      ambiguous = ambiguous + 1
    end
  end
end)
write_moved() -- also of the rows that were closed before one that cannot be
if not done then error(why) end
local held = redis.call('HGET', SPENT .. this_month, 'held:total')
if held and held ~= '0' and redis.call('HLEN', KEYS[1]) == 0 then redis.call('HDEL', SPENT .. this_month, 'since') end -- rows were lost: count the sums again
local counting = redis.call('EXISTS', part_of(this_month))
return {released, ambiguous, counting}
