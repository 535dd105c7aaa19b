-- Jobs that return to a queue stand there in the order in which they were accepted, in however many scripts they return. Where
-- the clock of Redis steps back, the order of the jobs around that step changes, and nothing else.

-- A text that is smaller for a job that was accepted earlier. Jobs of one millisecond (a batch that was requeued) are in the
-- order of their creation.
local function acceptance(id)
  local facts = redis.pcall('HMGET', 'rq:job:' .. id, 'accepted_ms', 'created_at')
  return string.format('%015.0f', tonumber(facts[1] or '') or 0) .. (facts[2] or '')
end

-- Sort ids by acceptance, in place. `descending`: the latest first.
local function by_acceptance(ids, descending)
  local keys = {}
  for _, id in ipairs(ids) do keys[id] = acceptance(id) end
  table.sort(ids, function(a, b)
    if descending then a, b = b, a end
    return keys[a] < keys[b]
  end)
  return ids
end
