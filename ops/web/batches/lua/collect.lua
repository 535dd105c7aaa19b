-- flags: allow-oom
-- Add answers to the two files of a batch, in the order of its lines, each once.
--
-- KEYS  1 failover:batch:{id}   2 failover:batch:{id}:runner   3 failover:files:kept   4 failover:files:sizes
--       5 parts of the output file   6 parts of the error file
-- ARGV  1 the runner's token   2 lines that were collected before   3 when unfinished files are gone (Unix s)
--       4 seconds that the collected jobs are kept   5 rq:job:   6 rq:results:   7-9 of the output: its part or '', file id,
--       bytes that the part takes in Redis   10-12 of the errors   13 how many words follow: field, value, ... of the batch
--       then those, then the ids of the collected jobs
-- Returns 1, or 0 if another runner has the batch, or has collected these lines.
-- Invariant: a line is in one part of one file.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if (redis.call('HGET', KEYS[1], 'collected') or '0') ~= ARGV[2] then return 0 end
for i = 0, 1 do
  local part, id, stored = unpack(ARGV, 7 + 3 * i, 9 + 3 * i)
  if part ~= '' then
    redis.call('RPUSH', KEYS[5 + i], part)
    redis.call('EXPIREAT', KEYS[5 + i], ARGV[3])
    redis.call('ZADD', KEYS[3], ARGV[3], id)
    redis.call('HINCRBY', KEYS[4], id, stored)
  end
end
local last = 13 + tonumber(ARGV[13])
redis.call('HSET', KEYS[1], unpack(ARGV, 14, last))
for i = last + 1, #ARGV do -- what they say is in the files now
  redis.call('EXPIRE', ARGV[5] .. ARGV[i], ARGV[4], 'LT')
  redis.call('EXPIRE', ARGV[6] .. ARGV[i], ARGV[4], 'LT')
end
return 1
