-- prelude: clock hint running_clock fair_queue memory
-- Accept one job, at most once for its idempotency key.
--
-- KEYS  1 failover:idempotency:{hash}   2 rq:job:{id}   3 rq:queue:{queue}   4 rq:queues   5 failover:accepted:{queue}
--       6 failover:stopped:{queue}   7 pause_ai_tasks   8 pause_ai_tasks:{queue}   9 rq:suspended   10 failover:memory
--       11 rq:scheduled:{queue}
-- ARGV  1 job id   2 fingerprint   3 expires after (ms)   4 '1' to enter at the head   5 rq:job: prefix
--       6 wake channel   7 promised within (ms)   8 tenant   9 percent of maxmemory at which no job is accepted
--       10 '1' if the caller gave the idempotency key   11 not before (Unix ms; 0: now)   12.. field, value, ... of the job hash
-- Returns {'accepted' | 'duplicate' | 'conflict', job id that holds the key}; the error OOM if Redis is nearly full
-- Invariant: one job per key. The job hash, its queue entry and the record are written together or not at all.
--            A resend finds its own record and returns the same; a job id that exists already is a conflict. The
--            key of a cancelled or lost job is free again. A key that is made from the job id needs no record: the job's
--            field `submission` tells a resend. A delayed job waits in RQ's schedule and counts as accepted at its time.
local given, submission = ARGV[10] == '1', string.sub(KEYS[1], -32)
local held = redis.call('HMGET', KEYS[1], 'job_id', 'fingerprint')
local status = held[1] and redis.pcall('HGET', ARGV[5] .. held[1], 'status')
if type(status) == 'string' and (status ~= 'canceled' or held[1] == ARGV[1]) then
  if held[1] == ARGV[1] and held[2] == ARGV[2] then return {'accepted', ARGV[1]} end -- a resend
  return {held[2] == ARGV[2] and 'duplicate' or 'conflict', held[1]}
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  local resent = not given and redis.pcall('HGET', KEYS[2], 'submission') == submission
  return {resent and 'accepted' or 'conflict', ARGV[1]}
end

local percent = memory_percent(KEYS[10])
if percent >= tonumber(ARGV[9]) then return redis.error_reply('OOM ' .. percent .. '% of maxmemory is used') end

local begins_ms = math.max(now_ms, tonumber(ARGV[11]))
local now, expires_ms, promised_ms = iso(now_ms), begins_ms + tonumber(ARGV[3]), begins_ms + tonumber(ARGV[7])
local held, ends_ms = held_by({KEYS[7], KEYS[8], KEYS[9]})
local function accept() -- returns whether RQ's list was empty
  if given then
    redis.call('HSET', KEYS[1], 'job_id', ARGV[1], 'fingerprint', ARGV[2])
    redis.call('PERSIST', KEYS[1])
  end
  if held then stand(KEYS[6], held, ends_ms, false) end -- maybe no worker has seen the flag yet
  local stopped = stopped_ms(KEYS[6])
  redis.call('HSET', KEYS[2], 'created_at', now, 'enqueued_at', now, 'status', 'queued',
    'accepted_ms', begins_ms, 'expires_ms', expires_ms, 'stopped_ms', stopped,
    'promised_ms', promised_ms, given and 'idempotency' or 'submission', given and KEYS[1] or submission,
    'started_at', '', 'ended_at', '', 'worker_name', '', 'success_callback_name', '', 'failure_callback_name', '',
    'stopped_callback_name', '', unpack(ARGV, 12)) -- what RQ writes too
  local tenant_stopped = tenant_stopped_ms(ARGV[8])
  if tenant_stopped > 0 then redis.call('HSET', KEYS[2], 'tenant_stopped_ms', tenant_stopped) end
  redis.call('SADD', KEYS[4], KEYS[3])
  redis.call('ZADD', KEYS[5], expires_ms - stopped, ARGV[1])
  redis.call('ZADD', KEYS[5] .. ':promised', promised_ms, ARGV[1])
  if begins_ms > now_ms then
    redis.call('HSET', KEYS[2], 'status', 'scheduled', 'waiting', 'delay', 'waiting_reason', 'not_before',
      'waiting_for', 'its time, ' .. iso(begins_ms), 'waiting_until_ms', begins_ms)
    redis.call('ZADD', KEYS[11], begins_ms / 1000, ARGV[1])
    return false
  end
  if ARGV[4] == '1' then return enter_first(KEYS[3], ARGV[1]) end
  return enter(KEYS[3], ARGV[1], ARGV[8]) -- last: nothing can fail once the job is in its queue
end

local written, was_empty = pcall(accept)
if not written then -- a key has the wrong type: another tool wrote it. Scripts do not roll back, and a refused job must not stay
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.pcall('ZREM', KEYS[5], ARGV[1])
  redis.pcall('ZREM', KEYS[5] .. ':promised', ARGV[1])
  redis.pcall('ZREM', KEYS[11], ARGV[1])
  error(was_empty)
end
if was_empty then hint(ARGV[6], KEYS[3]) end
return {'accepted', ARGV[1]}
