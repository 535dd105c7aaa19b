-- prelude: clock key_types happened running_clock hint leaves lost ends event count dead_letters
-- flags: allow-oom
-- Bury jobs that wait past their expiry, by their queue's running clock: their answer would be worth nothing. A job that
-- runs is left alone: its deadline is never later than its expiry.
--
-- KEYS  1 failover:accepted:{queue}   2 rq:scheduled:{queue}   3 rq:failed:{queue}   4 failover:dead:{queue}
--       5 failover:stopped:{queue}
-- ARGV  1 at most   2 keep a dead letter (s)   3 rq:job:   4 rq:results:
-- Returns the ids buried.
-- Invariant: only a queued or scheduled job is buried here, and none for the time for which its tenant was paused. Its entry in the queue's list stays, because removing from a
--            long list is slow; claim skips it, because the job is not queued any more.
expect('zset', KEYS[1] .. ':promised', KEYS[2], KEYS[3], KEYS[4])
local buried, running_ms = {}, now_ms - stopped_ms(KEYS[5])
local LOOK_AGAIN_MS = 60000 -- at a job of a paused tenant, whose expiry moves on with the time

-- The expiry of a job by the queue's running clock, if its tenant was paused since it was accepted; else 0.
local function later(job)
  local life = redis.pcall('HMGET', job, 'tenant', 'tenant_stopped_ms', 'expires_ms', 'stopped_ms')
  local paused_ms = tenant_stopped_ms(life[1], life[2])
  if paused_ms == 0 or not life[3] then return 0 end
  local expires_ms = tonumber(life[3]) - (tonumber(life[4] or '') or 0) + paused_ms
  local is_paused = set(redis.call('GET', 'failover:paused-tenant:' .. life[1]))
  return is_paused and math.max(expires_ms, running_ms + LOOK_AGAIN_MS) or expires_ms
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', running_ms, 'LIMIT', 0, tonumber(ARGV[1]))) do
  local job = ARGV[3] .. id
  local status = redis.pcall('HGET', job, 'status')
  local later_ms = later(job)
  if (status == 'queued' or status == 'scheduled') and later_ms > running_ms then
    redis.call('ZADD', KEYS[1], later_ms, id)
  elseif status == 'queued' or status == 'scheduled' then
    local detail = 'its answer would come too late'
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', job, 'waiting', 'waiting_reason', 'waiting_subjects', 'waiting_for',
      'waiting_until_ms')
    unfile(KEYS[4], id, job)
    redis.call('HSET', job, 'status', 'failed', 'ended_at', iso(now_ms),
      'dead_reason', 'expired', 'dead_detail', detail, 'exc_info', detail)
    redis.call('ZADD', KEYS[3], math.floor(now_ms / 1000) + tonumber(ARGV[2]), id)
    file(KEYS[4], id, job, now_ms)
    ends(id, job, KEYS[1], ARGV[4] .. id, ARGV[2])
    happened_to(job, 'dead', 'expired')
    buried[#buried + 1] = id
  elseif status ~= 'started' and not lose_if_accepted(id, job, KEYS[1]) then
    leaves(KEYS[1], id)
  end
end
return buried
