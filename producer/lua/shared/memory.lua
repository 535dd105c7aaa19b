-- How much of maxmemory is used, in percent; 0 without a limit. INFO costs as much as ten commands, so its answer is kept for
-- MEMORY_MS. A user that may not call INFO gets 0: then Redis itself refuses, at maxmemory.
local MEMORY_MS = 250
local function memory_percent(key)
  local known = tonumber(redis.call('GET', key) or '')
  if known then return known end
  local info = redis.pcall('INFO', 'memory')
  if type(info) ~= 'string' then return 0 end
  local used = tonumber(string.match(info, '\nused_memory:(%d+)') or '')
  local limit = tonumber(string.match(info, '\nmaxmemory:(%d+)') or '')
  local percent = used and limit and limit > 0 and math.floor(100 * used / limit) or 0
  redis.call('SET', key, percent, 'PX', MEMORY_MS)
  return percent
end
