-- prelude: clock hint audit_trail running_clock pause_flags accepted_order wake_parked
-- flags: allow-oom
-- Clear a flag. With the flag of everything, also the other flags that a budget set, if a budget set this one or ARGV 4
-- asks for it.
--
-- KEYS  1 the flag   2 failover:pause   3 pause_ai_tasks   4 rq:suspended   5 rq:queues   6 failover:audit
--       7 failover:spend
-- ARGV  1 who   2 control channel   3 wake channel   4 '1' to clear all flags that a budget set
--       5 percentage below which budgets do not pause again, or ''   6 the provider whose budgets ARGV 5 concerns, '' for all
-- Returns the keys of the flags that were set.
local flags, cleared = {KEYS[1]}, {}
local budgets = ARGV[4] == '1' or note_of(redis.call('HGET', KEYS[2], KEYS[1])).who == 'budget'
if KEYS[1] == KEYS[3] and budgets then
  local notes = redis.call('HGETALL', KEYS[2])
  for i = 1, #notes, 2 do
    if notes[i] ~= KEYS[1] and note_of(notes[i + 1]).who == 'budget' then flags[#flags + 1] = notes[i] end
  end
end
for _, flag in ipairs(flags) do
  if set(redis.call('GET', flag)) then cleared[#cleared + 1] = flag end
  redis.call('DEL', flag)
  redis.call('HDEL', KEYS[2], flag)
  stand_tenant(flag)
end
if ARGV[5] ~= '' then
  local spends = redis.call('HGETALL', KEYS[7])
  for i = 1, #spends, 2 do
    if ARGV[6] == '' or ARGV[6] == string.match(spends[i], '^[^:]*') then
      local spend = cjson.decode(spends[i + 1])
      spend.again_at = tonumber(ARGV[5])
      redis.call('HSET', KEYS[7], spends[i], cjson.encode(spend))
    end
  end
end
for _, flag in ipairs(cleared) do
  local provider = string.match(flag, '^failover:paused%-provider:(.+)$')
  if provider then wake_parked(KEYS[5], {'route', 'paused_route'}, 'provider:' .. provider) end
end
stand_all(KEYS[3], KEYS[4], KEYS[5])
if #cleared > 0 or ARGV[5] ~= '' then
  audited(KEYS[6], 'resume', ARGV[1],
    'flags', table.concat(cleared, ' '), 'again_at', ARGV[5])
end
hint(ARGV[2], KEYS[1])
hint(ARGV[3], 'resume')
return cleared
