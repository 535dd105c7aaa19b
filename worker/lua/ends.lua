-- A job has ended: it leaves the accepted set; it, its result and its idempotency record are kept for the same time.
local function ends(id, job, accepted, results, keep_seconds)
  redis.call('ZREM', accepted, id)
  redis.call('EXPIRE', job, keep_seconds)
  redis.call('EXPIRE', results, keep_seconds)
  local record = redis.call('HGET', job, 'idempotency')
  if record then redis.call('EXPIRE', record, keep_seconds) end
end

