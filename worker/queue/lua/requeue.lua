-- prelude: clock hint key_types audit_trail running_clock event count dead_letters fair_queue
-- flags: allow-oom
-- Dead letters return to the tail of the queue and start again: attempts, executions and crashes are zero, the promised
-- time and the expiry count from now, the generation is one more.
--
-- KEYS  1 rq:failed:{queue}   2 rq:queue:{queue}   3 failover:accepted:{queue}   4 failover:dead:{queue}
--       5 failover:audit   6 failover:stopped:{queue}
-- ARGV  1 token   2 who   3 generations allowed   4 rq:job:   5 rq:results:   6 wake channel   7.. job ids
-- Returns {ids requeued, ids refused because of their generation, ids that are no dead letter any more}
-- Invariant: a dead letter is requeued once, even by several callers; a resend of the token reports the same and does
--            nothing.
expect('list', KEYS[2], ring_of(KEYS[2]))
expect('zset', KEYS[1], KEYS[3], KEYS[3] .. ':promised', KEYS[4])
expect('stream', KEYS[5])
local stopped = stopped_ms(KEYS[6])
local requeued, refused, gone, fresh = {}, {}, {}, {}
for i = 7, #ARGV do
  local id = ARGV[i]
  local job = ARGV[4] .. id
  local life = redis.call('HMGET', job, 'requeued_by', 'generation', 'accepted_ms', 'expires_ms', 'idempotency',
      'promised_ms', 'tenant')
  local generation = tonumber(life[2] or '0') or 0
  if not redis.call('ZSCORE', KEYS[1], id) or redis.call('EXISTS', job) == 0 then
    if life[1] == ARGV[1] then requeued[#requeued + 1] = id else gone[#gone + 1] = id end
  elseif generation >= tonumber(ARGV[3]) then
    refused[#refused + 1] = id
  else
    redis.call('ZREM', KEYS[1], id)
    unfile(KEYS[4], id, job)
    redis.call('PERSIST', job)
    if life[5] then redis.call('PERSIST', life[5]) end
    redis.call('DEL', ARGV[5] .. id)
    local worth = (tonumber(life[4]) or 0) - (tonumber(life[3]) or 0)
    if worth <= 0 then worth = 86400000 end
    local promise = life[6] and tonumber(life[6]) - (tonumber(life[3]) or 0)
    redis.call('HDEL', job, 'dead_reason', 'dead_detail', 'dead_route', 'exc_info', 'executions', 'crashes', 'attempts',
      'run_ms', 'trail', 'settled', 'suspect', 'charged', 'begun', 'reaped')
    redis.call('HSET', job, 'status', 'queued', 'enqueued_at', iso(now_ms), 'started_at', '', 'ended_at', '',
      'accepted_ms', now_ms, 'expires_ms', now_ms + worth, 'stopped_ms', stopped,
      'tenant_stopped_ms', tenant_stopped_ms(life[7]), 'generation', generation + 1,
      'requeued_by', ARGV[1], 'requeued_who', ARGV[2], 'requeued_ms', now_ms)
    redis.call('ZADD', KEYS[3], now_ms + worth - stopped, id)
    if promise then
      redis.call('HSET', job, 'promised_ms', now_ms + promise)
      redis.call('ZADD', KEYS[3] .. ':promised', now_ms + promise, id)
    end
    enter(KEYS[2], id, life[7])
    requeued[#requeued + 1] = id
    fresh[#fresh + 1] = id
  end
end
if #fresh > 0 then
  audited(KEYS[5], 'requeue', ARGV[2], 'token', ARGV[1],
    'jobs', table.concat(fresh, ' '))
  hint(ARGV[6], KEYS[2])
end
return {requeued, refused, gone}
