-- Puts jobs that were claimed before back into a list of the fair queue.
local PASSED_AT_MOST = 5000 -- entries of the list that one call moves: about 2 ms. Of more, the order is not kept.

-- Put `ids` at an end of the list `key` by acceptance. At the head they stand behind the jobs there that were accepted
-- earlier; at the tail, before the jobs there that returned too and were accepted later. New jobs are never passed.
local function put_back(key, ids, at_tail)
  local function passed(entry, id) -- whether the returning job `id` stands further inside than this entry
    if not at_tail then return acceptance(entry) < acceptance(id) end
    local times = redis.pcall('HMGET', 'rq:job:' .. entry, 'created_at', 'enqueued_at')
    return times[1] ~= times[2] and acceptance(id) < acceptance(entry)
  end

  by_acceptance(ids, at_tail)
  -- How many entries the innermost job passes: doubling steps, then halves. They are sorted, because each returned so.
  local innermost, low, high = ids[#ids], 0, 1
  local length = math.min(redis.call('LLEN', key), PASSED_AT_MOST)
  local function passes(n) return passed(redis.call('LINDEX', key, at_tail and -n or n - 1), innermost) end
  while high <= length and passes(high) do low, high = high, 2 * high end
  high = math.min(high, length + 1)
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if passes(middle) then low = middle else high = middle end
  end

  local outside = low > 0 and redis.call(at_tail and 'RPOP' or 'LPOP', key, low) or {}
  local merged, left = {}, #outside -- the innermost first
  for i = #ids, 1, -1 do
    while left > 0 and not passed(outside[left], ids[i]) do
      merged[#merged + 1], left = outside[left], left - 1
    end
    merged[#merged + 1] = ids[i]
  end
  for i = left, 1, -1 do merged[#merged + 1] = outside[i] end
  for i = 1, #merged, 1000 do
    redis.call(at_tail and 'RPUSH' or 'LPUSH', key, unpack(merged, i, math.min(i + 999, #merged)))
  end
end

-- Add jobs at the head of their tenants' own jobs.
local function return_first(list, ids)
  local of_list = {}
  for _, id in ipairs(ids) do
    local tenant = redis.call('HGET', 'rq:job:' .. id, 'tenant')
    local lane = tenant and lane_of(list, tenant)
    local key = lane and redis.call('EXISTS', lane) == 1 and lane or list
    of_list[key] = of_list[key] or {}
    table.insert(of_list[key], id)
  end
  for key, returned in pairs(of_list) do put_back(key, returned, false) end
end

-- Add jobs at the tail of the fair queue.
local function return_last(list, ids)
  local entered = {}
  for _, id in ipairs(by_acceptance(ids)) do
    local _, key = enter(list, id, redis.call('HGET', 'rq:job:' .. id, 'tenant'))
    entered[key] = (entered[key] or 0) + 1
  end
  for key, count in pairs(entered) do put_back(key, redis.call('RPOP', key, count), true) end
end
