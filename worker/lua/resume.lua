-- prelude: clock standing
-- flags: allow-oom
-- Clear a flag, and with the general one those that the budget set beside it.
--
-- KEYS  1 the flag   2 failover:pause   3 pause_ai_tasks   4 rq:suspended   5 rq:queues   6 failover:audit
--       7 failover:spend
-- ARGV  1 who   2 control channel   3 wake channel   4 percentage below which no budget pauses again, or ''
-- Returns the flags that were set.
local flags, cleared = {KEYS[1]}, {}
if KEYS[1] == KEYS[3] then
  local notes = redis.call('HGETALL', KEYS[2])
  for i = 1, #notes, 2 do
    if notes[i] ~= KEYS[1] and cjson.decode(notes[i + 1]).budget then flags[#flags + 1] = notes[i] end
  end
end
for _, flag in ipairs(flags) do
  if set(redis.call('GET', flag)) then cleared[#cleared + 1] = flag end
  redis.call('DEL', flag)
  redis.call('HDEL', KEYS[2], flag)
end
if ARGV[4] ~= '' then
  local spends = redis.call('HGETALL', KEYS[7])
  for i = 1, #spends, 2 do
    local spend = cjson.decode(spends[i + 1])
    spend.again_at = tonumber(ARGV[4])
    redis.call('HSET', KEYS[7], spends[i], cjson.encode(spend))
  end
end
stand_all(KEYS[3], KEYS[4], KEYS[5])
if #cleared > 0 then
  redis.call('XADD', KEYS[6], 'MAXLEN', '~', 100000, '*', 'action', 'resume', 'who', ARGV[1],
    'flags', table.concat(cleared, ' '))
end
redis.call('PUBLISH', ARGV[2], KEYS[1])
redis.call('PUBLISH', ARGV[3], 'resume')
return cleared
