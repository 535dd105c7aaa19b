-- prelude: clock hint key_types fair_queue accepted_order return_jobs wake_parked
-- flags: allow-oom
-- Scheduled jobs that are due return to the queue, in the order in which they were accepted. Retried jobs go to its head,
-- because they were accepted before the jobs queued there. Parked and delayed jobs go to its tail, so that jobs without an open route
-- never block jobs that have one. A wake that is not finished goes on. Jobs parked in turn go to its head, because no other job could have been executed first.
--
-- KEYS  1 rq:scheduled:{queue}   2 rq:queue:{queue}
-- ARGV  1 at most   2 rq:job:   3 wake channel
-- Returns the number of jobs promoted.
-- Invariant: only a job whose status is still scheduled is queued, and only once.
expect('list', KEYS[2], ring_of(KEYS[2]))
expect('string', first_of(KEYS[2]))
local limit = tonumber(ARGV[1])
if redis.call('ZCOUNT', KEYS[1], '-inf', now_ms / 1000) < limit then wake_more(KEYS[1]) end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms / 1000, 'LIMIT', 0, limit)
local first, last = {}, {}
for _, id in ipairs(due) do
  local job = ARGV[2] .. id
  redis.call('ZREM', KEYS[1], id)
  if redis.pcall('HGET', job, 'status') == 'scheduled' then
    local waiting = redis.call('HGET', job, 'waiting')
    local returned = (waiting == 'park' or waiting == 'delay') and last or first
    returned[#returned + 1] = id
    redis.call('HSET', job, 'status', 'queued', 'enqueued_at', iso(now_ms))
    redis.call('HDEL', job, 'waiting', 'waiting_reason', 'waiting_subjects', 'waiting_for', 'waiting_until_ms')
  end
end
return_last(KEYS[2], last)
return_first(KEYS[2], first)
local promoted = #first + #last
if promoted > 0 then hint(ARGV[3], KEYS[2]) end
return promoted
