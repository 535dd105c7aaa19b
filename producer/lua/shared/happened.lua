-- Note an outcome for the history, in the script that commits it: counted once, whatever is killed (worker/history/collector.py).
-- A key of a wrong type is no reason to fail: the job counts more than its history.
local function happened(record)
  if record ~= '' then redis.pcall('XADD', 'failover:happened', 'MAXLEN', '~', 200000, '*', 'e', record) end
end

-- A job died without a worker.
local function happened_dead(job, reason)
  local tenant = redis.pcall('HGET', job, 'tenant')
  happened(cjson.encode({kind = 'dead', reason = reason, tenant = type(tenant) == 'string' and tenant or nil}))
end
