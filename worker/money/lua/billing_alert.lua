-- prelude: clock hint audit_trail running_clock pause_flags
-- flags: allow-oom
-- Record what billing reports of a provider's budget; at the threshold, pause everything (or the provider).
--
-- KEYS  1 failover:spend   2 failover:spend-message:{hash}   3 pause_ai_tasks   4 failover:paused-provider:{p}
--       5 failover:pause   6 rq:suspended   7 rq:queues   8 failover:audit
-- ARGV  1 provider, or provider:budget id   2 percent   3 when that was so (ms; '' now)   4 start of its interval, or ''
--       5 message id, or ''
--       6 threshold   7 '1' to pause everything, '0' the provider alone   8 note of the flag (JSON)   9 who
--       10 control channel   11 the budget's name, or ''
-- Returns {'noted' | 'duplicate' | 'older', 1 if this call paused it}
-- Invariant: a message counts once; an older one never lowers the value; a lower value never resumes.
if ARGV[5] ~= '' and redis.call('EXISTS', KEYS[2]) == 1 then return {'duplicate', 0} end
local function heard(outcome, paused) -- last: if this script fails, the message counts when it is resent
  if ARGV[5] ~= '' then redis.call('SET', KEYS[2], '1', 'EX', 7 * 86400) end
  return {outcome, paused}
end

local BUDGETS_KEPT = 1000 -- their ids come from outside; the one that was heard of longest ago goes first
local function oldest(spend)
  local found, since
  local known = redis.call('HGETALL', spend)
  for i = 1, #known, 2 do
    local read, report = pcall(cjson.decode, known[i + 1])
    local at_ms = read and type(report) == 'table' and tonumber(report.at) or 0
    if not since or at_ms < since then found, since = known[i], at_ms end
  end
  return found
end

local percent, at = tonumber(ARGV[2]), tonumber(ARGV[3]) or now_ms
local raw = redis.call('HGET', KEYS[1], ARGV[1])
local known = raw and cjson.decode(raw) or {}
local same = not known.interval or ARGV[4] == '' or known.interval == ARGV[4]
if not same and ARGV[4] < known.interval then return heard('older', 0) end
if same and known.at and at < known.at and percent <= known.percent then return heard('older', 0) end

local threshold = tonumber(ARGV[6])
-- an operator's `again_at` holds for the interval; without an interval, until the value falls so far that a new month began
local fell = ARGV[4] == '' and not known.interval and percent < threshold / 2
local again_at = same and not fell and known.again_at or nil
local new = {percent = percent, at = same and math.max(at, known.at or 0) or at, who = ARGV[9], again_at = again_at, name = ARGV[11]}
new.interval = ARGV[4] ~= '' and ARGV[4] or (same and known.interval or nil)
if not raw and redis.call('HLEN', KEYS[1]) >= BUDGETS_KEPT then redis.call('HDEL', KEYS[1], oldest(KEYS[1])) end
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(new))
if percent < math.max(threshold, again_at or 0) then return heard('noted', 0) end

local paused = 0
for _, flag in ipairs(ARGV[7] == '1' and {KEYS[3], KEYS[4]} or {KEYS[4]}) do
  local is_set = set(redis.call('GET', flag))
  if not is_set then paused = 1 end
  if not is_set or redis.call('PTTL', flag) ~= -1 then
    pause_flag(flag, KEYS[5], 0, ARGV[8], ARGV[9], KEYS[8], ARGV[10])
  end
end
stand_all(KEYS[3], KEYS[6], KEYS[7])
return heard('noted', paused)
