-- prelude: clock hint key_types happened leaves lost ends event count dead_letters fair_queue accepted_order
-- flags: allow-oom
-- Take jobs back from leases that expired without a heartbeat: their worker is gone. The jobs return to the head of the
-- queue, in the order in which they were accepted, as suspects: they run few at a time, so that only a job that ran alone
-- among suspects when its worker vanished is charged. A job that was charged too often is buried.
--
-- KEYS  1 failover:leases:{queue}   2 rq:wip:{queue}   3 rq:queue:{queue}   4 rq:failed:{queue}
--       5 failover:accepted:{queue}   6 failover:dead:{queue}
-- ARGV  1 at most   2 charges that bury   3 keep a dead letter (s)   4 rq:job:   5 rq:execution:   6 rq:executions:
--       7 wake channel   8 rq:results:   9 not after (ms of Redis TIME)
-- Returns {job ids requeued, job ids buried}
-- Invariant: an expired lease is removed exactly once, and its execution can then no longer settle the job.
local requeued, buried = {}, {}
if now_ms > tonumber(ARGV[9]) then return {requeued, buried} end -- Redis was stuck: heartbeats wait too
expect('list', KEYS[3])
expect('zset', KEYS[2], KEYS[4], KEYS[5], KEYS[5] .. ':promised', KEYS[6])
local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, tonumber(ARGV[1]))
for _, member in ipairs(expired) do
  local id, execution = string.match(member, '^(.*):([^:]*)$')
  redis.call('ZREM', KEYS[1], member)
  redis.call('ZREM', KEYS[2], member)
  redis.call('DEL', ARGV[5] .. member)
  redis.call('ZREM', ARGV[6] .. id, execution)
  local job = ARGV[4] .. id
  local held = redis.pcall('HGET', job, 'lease') == execution
  if held then redis.call('HDEL', job, 'lease') else lose_if_accepted(id, job, KEYS[5]) end
  if held and redis.call('HGET', job, 'status') ~= 'started' then -- cancelled by one of RQ's tools
    leaves(KEYS[5], id)
  elseif held then
    local facts = redis.call('HMGET', job, 'suspect', 'charged', 'crashes', 'begun')
    local suspect, charged = tonumber(facts[1] or '') or 0, tonumber(facts[2] or '') or 0
    local alone = facts[4] == execution .. ':alone'
    if alone then charged = charged + 1 end
    if suspect == 0 or alone or facts[4] == execution .. ':together' then -- a suspect that waited has not run
      redis.call('HSET', job, 'suspect', suspect + 1, 'charged', charged, 'crashes', (tonumber(facts[3] or '') or 0) + 1,
        'reaped', execution)
    end
    if charged >= tonumber(ARGV[2]) then
      local detail = suspect + 1 .. ' workers vanished while executing it, the last ' .. charged .. ' without another suspect'
      unfile(KEYS[6], id, job)
      redis.call('HSET', job, 'status', 'failed', 'ended_at', iso(now_ms), 'worker_name', '',
        'dead_reason', 'crashed', 'dead_detail', detail, 'exc_info', detail)
      redis.call('ZADD', KEYS[4], math.floor(now_ms / 1000) + tonumber(ARGV[3]), id)
      file(KEYS[6], id, job, now_ms)
      ends(id, job, KEYS[5], ARGV[8] .. id, ARGV[3])
      happened_to(job, 'dead', 'crashed')
      buried[#buried + 1] = id
    else
      redis.call('HSET', job, 'status', 'queued', 'enqueued_at', iso(now_ms), 'worker_name', '')
      requeued[#requeued + 1] = id
    end
  end
end
for _, id in ipairs(by_acceptance(requeued, true)) do enter_first(KEYS[3], id) end
if #requeued > 0 then hint(ARGV[7], KEYS[3]) end
return {requeued, buried}
