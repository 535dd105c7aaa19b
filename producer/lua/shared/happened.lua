-- Note an outcome for the history, in the script that commits it: counted once, whatever is killed (worker/history/collector.py).
-- A key of a wrong type is no reason to fail: the job counts more than its history.
local function happened(record)
  if record ~= '' then redis.pcall('XADD', 'failover:happened', 'MAXLEN', '~', 200000, '*', 'e', record) end
end

-- A job's state was changed without a worker: kind is dead (with its reason), resolved, cancelled or discarded.
local function happened_to(job, kind, reason)
  local names = redis.pcall('HMGET', job, 'tenant', 'feature')
  happened(cjson.encode({kind = kind, reason = reason, tenant = names[1] or nil, feature = names[2] or nil}))
end
