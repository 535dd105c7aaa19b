-- Jobs that left the queue without an outcome, because another tool deleted or overwrote their data. A person discards them.
-- failover:quarantine: hash, job id -> {queue, why, at_ms} as JSON; the field '(others)' counts those beyond LOST_AT_MOST.
local LOST, LOST_AT_MOST = 'failover:quarantine', 10000

local function lose(id, queue, why)
  if redis.call('HEXISTS', LOST, id) == 0 and redis.call('HLEN', LOST) >= LOST_AT_MOST then
    redis.call('HINCRBY', LOST, '(others)', 1)
  else
    redis.call('HSET', LOST, id, cjson.encode({queue = queue, why = string.sub(why, 1, 200), at_ms = now_ms}))
  end
end

-- An accepted job has no status any more. If its data is gone or is no job, it is lost. `accepted`: failover:accepted:{queue}
local function lose_if_accepted(id, job, accepted)
  if not redis.call('ZSCORE', accepted, id) then return false end
  local kind = redis.call('TYPE', job).ok
  local why = kind == 'none' and 'its data was deleted' or kind ~= 'hash' and 'its data was overwritten: it is a ' .. kind
  if not why then why = redis.call('HEXISTS', job, 'status') == 0 and 'its data was overwritten: it has no status' end
  if not why then return false end
  lose(id, string.sub(accepted, string.len('failover:accepted:') + 1), why)
  leaves(accepted, id)
  return true
end
