-- prelude: clock key_types happened audit_trail hint leaves ends event count dead_letters
-- flags: allow-oom
-- Discard dead letters: they become cancelled jobs, which are kept for a while.
--
-- KEYS  1 rq:failed:{queue}   2 rq:canceled:{queue}   3 failover:accepted:{queue}   4 failover:dead:{queue}
--       5 failover:audit
-- ARGV  1 token   2 who   3 keep (s)   4 rq:job:   5 rq:results:   6.. job ids
-- Returns {ids discarded, ids that are no dead letter}
-- Invariant: only a dead letter is discarded; a resend of the token reports the same and does nothing.
expect('zset', KEYS[1], KEYS[2], KEYS[3], KEYS[3] .. ':promised', KEYS[4])
expect('stream', KEYS[5])
local discarded, fresh, gone = {}, {}, {}
for i = 6, #ARGV do
  local id = ARGV[i]
  local job = ARGV[4] .. id
  if redis.call('ZREM', KEYS[1], id) == 1 and redis.call('EXISTS', job) == 1 then
    unfile(KEYS[4], id, job)
    redis.call('HSET', job, 'status', 'canceled', 'ended_at', iso(now_ms), 'discarded_by', ARGV[1])
    redis.call('ZADD', KEYS[2], math.floor(now_ms / 1000), id)
    ends(id, job, KEYS[3], ARGV[5] .. id, ARGV[3])
    happened_to(job, 'discarded')
    discarded[#discarded + 1] = id
    fresh[#fresh + 1] = id
  elseif redis.pcall('HGET', job, 'discarded_by') == ARGV[1] then
    discarded[#discarded + 1] = id
  else
    gone[#gone + 1] = id
  end
end
if #fresh > 0 then
  audited(KEYS[5], 'discard', ARGV[2], 'token', ARGV[1],
    'jobs', table.concat(fresh, ' '))
end
return {discarded, gone}
