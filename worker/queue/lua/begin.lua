-- flags: allow-oom
-- A suspect begins to run. If its worker vanishes now, the job is charged if it ran alone among suspects.
--
-- KEYS  1 rq:job:{id}
-- ARGV  1 execution id   2 'alone' | 'together'
-- Invariant: only the execution that holds the job's lease can begin.
if redis.call('HGET', KEYS[1], 'lease') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'begun', ARGV[1] .. ':' .. ARGV[2])
end
return 'begun'
