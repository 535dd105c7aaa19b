-- Delete a results key that is no stream (written by another tool). XADD would fail on it, and scripts do not roll back.
local function only_stream(results)
  local kind = redis.call('TYPE', results).ok
  if kind ~= 'stream' and kind ~= 'none' then redis.call('DEL', results) end
end

-- A job has ended: it leaves the accepted set; it, its result and its idempotency record are kept for the same time.
local function ends(id, job, accepted, results, keep_seconds)
  leaves(accepted, id)
  redis.call('EXPIRE', job, keep_seconds)
  redis.call('EXPIRE', results, keep_seconds)
  local record = redis.call('HGET', job, 'idempotency')
  if record then redis.call('EXPIRE', record, keep_seconds) end
end

