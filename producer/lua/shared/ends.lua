-- Delete a results key that is no stream (written by another tool). XADD would fail on it, and scripts do not roll back.
local function only_stream(results)
  local kind = redis.call('TYPE', results).ok
  if kind ~= 'stream' and kind ~= 'none' then redis.call('DEL', results) end
end

-- A job, its result and its idempotency record (if it has one) are kept for the same time.
local function expire_together(job, results, record, keep_seconds)
  redis.call('EXPIRE', job, keep_seconds)
  redis.call('EXPIRE', results, keep_seconds)
  if record then redis.call('EXPIRE', record, keep_seconds) end
end

-- A job has ended without an answer.
local function ends(id, job, accepted, results, keep_seconds)
  leaves(accepted, id)
  expire_together(job, results, redis.call('HGET', job, 'idempotency'), keep_seconds)
end

-- Redis allocates 4 kB for the first entry of a stream, whatever its size. A copy of the stream takes only what it needs.
local SCRATCH = 'failover:scratch'
local function fit(results)
  if redis.pcall('COPY', results, SCRATCH, 'REPLACE') == 1 then redis.call('RENAME', SCRATCH, results) end
end

-- What a done job keeps.
local KEPT = {'created_at', 'enqueued_at', 'started_at', 'origin', 'description', 'tenant', 'job_type', 'accepted_ms',
  'submission', 'executions', 'crashes', 'generation', 'requeued_by', 'requeued_who', 'requeued_ms', 'group_id', 'meta'}
local READ = {'status', 'settled', 'idempotency', unpack(KEPT)}

-- What is read of a job that may be done: name -> value, without those that it does not have.
local function state_of(job)
  local state = {}
  for i, value in ipairs(redis.call('HMGET', job, unpack(READ))) do state[READ[i]] = value or nil end
  return state
end

-- A job has its answer: its hash is written anew, with what is kept of its state and the given fields (name, value, ...)
-- alone. Redis stores a new hash of few, short values in a third of the space. The job still has to leave the accepted set.
local function done(job, results, keep_seconds, state, ...)
  local fields = {...}
  for _, name in ipairs(KEPT) do
    if state[name] then
      fields[#fields + 1], fields[#fields + 2] = name, state[name]
    end
  end
  redis.call('DEL', job)
  redis.call('HSET', job, unpack(fields))
  expire_together(job, results, state.idempotency, keep_seconds)
end
