-- Delete a results key that is no stream (written by another tool). XADD would fail on it, and scripts do not roll back.
local function only_stream(results)
  local kind = redis.call('TYPE', results).ok
  if kind ~= 'stream' and kind ~= 'none' then redis.call('DEL', results) end
end

-- A job leaves the accepted set; it, its result and its idempotency record (if it has one) are kept for the same time.
local function expire(accepted, id, keep_seconds, job, results, record)
  leaves(accepted, id)
  redis.call('EXPIRE', job, keep_seconds)
  redis.call('EXPIRE', results, keep_seconds)
  if record then redis.call('EXPIRE', record, keep_seconds) end
end

-- A job has ended.
local function ends(id, job, accepted, results, keep_seconds)
  expire(accepted, id, keep_seconds, job, results, redis.call('HGET', job, 'idempotency'))
end

-- Redis allocates 4 kB for the first entry of a stream, whatever its size. A copy of the stream takes only what it needs.
local SCRATCH = 'failover:scratch'
local function fit(results)
  if redis.pcall('COPY', results, SCRATCH, 'REPLACE') == 1 then redis.call('RENAME', SCRATCH, results) end
end

-- What a done job keeps. `idempotency` is read with them, but the job needs it no more.
local KEPT = {'idempotency', 'created_at', 'enqueued_at', 'started_at', 'origin', 'description', 'tenant', 'job_type', 'accepted_ms',
  'submission', 'executions', 'crashes', 'generation', 'requeued_by', 'requeued_who', 'requeued_ms', 'group_id', 'meta'}

-- A job is done: as ends(), and its hash is written anew, with those and the given fields (name, value, ...) alone. Redis
-- stores a new hash of few, short values in a third of the space.
local function done(id, job, accepted, results, keep_seconds, ...)
  local fields, values = {...}, redis.call('HMGET', job, unpack(KEPT))
  for i = 2, #KEPT do
    if values[i] then
      fields[#fields + 1] = KEPT[i]
      fields[#fields + 1] = values[i]
    end
  end
  redis.call('DEL', job)
  redis.call('HSET', job, unpack(fields))
  expire(accepted, id, keep_seconds, job, results, values[1])
end
