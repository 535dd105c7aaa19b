-- prelude: clock ends dead
-- Cancel a job wherever it stands: queued, scheduled, running (its worker loses the lease and breaks off), or dead
-- (then the dead letter is discarded).
--
-- KEYS  1 rq:job:{id}   2 rq:queue:{queue}   3 rq:scheduled:{queue}   4 failover:leases:{queue}   5 rq:wip:{queue}
--       6 rq:failed:{queue}   7 rq:canceled:{queue}   8 failover:accepted:{queue}   9 failover:dead:{queue}
--       10 rq:results:{id}   11 failover:audit
-- ARGV  1 job id   2 who   3 keep (s)   4 rq:execution:   5 rq:executions:   6 action, for the audit
--       7 '1': only if it is a dead letter
-- Returns the status that it had (RQ's word), or 'unknown'; 'finished' and 'canceled' jobs are left as they are.
-- Invariant: after it the job is in no list, lease or schedule; an outcome that comes later is fenced.
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return 'unknown' end
if status == 'finished' or status == 'canceled' then return status end
if ARGV[7] == '1' and status ~= 'failed' then return status end

local execution = redis.call('HGET', KEYS[1], 'lease')
if execution then
  local member = ARGV[1] .. ':' .. execution
  redis.call('ZREM', KEYS[4], member)
  redis.call('ZREM', KEYS[5], member)
  redis.call('DEL', ARGV[4] .. member)
  redis.call('ZREM', ARGV[5] .. ARGV[1], execution)
end
redis.call('LREM', KEYS[2], 0, ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
unfile(KEYS[9], ARGV[1], KEYS[1])
redis.call('HDEL', KEYS[1], 'lease', 'waiting', 'waiting_for', 'waiting_until_ms', 'settled')
redis.call('HSET', KEYS[1], 'status', 'canceled', 'ended_at', iso(now_ms), 'worker_name', '')
redis.call('ZADD', KEYS[7], math.floor(now_ms / 1000), ARGV[1])
ends(ARGV[1], KEYS[1], KEYS[8], KEYS[10], ARGV[3])
redis.call('XADD', KEYS[11], 'MAXLEN', '~', 100000, '*', 'action', ARGV[6], 'who', ARGV[2], 'jobs', ARGV[1])
return status
