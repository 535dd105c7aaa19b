-- prelude: hint
-- flags: allow-oom
-- One more piece of an answer that is read while it comes. Who reads along is woken (producer/wakeups.py).
--
-- KEYS  1 failover:live:{id}
-- ARGV  1 attempt   2 number of the piece, from 1   3 '+' and its text, or '!': the attempt failed after its first piece
--       4 keep (s)   5 the job's channel
-- Invariant: each piece of an attempt is there once, in order; a resend changes nothing.
local last = redis.call('LINDEX', KEYS[1], -1)
local attempt, number = string.match(last or '', '^(%S+) (%d+) ')
if attempt == ARGV[1] and tonumber(number) >= tonumber(ARGV[2]) then return 'again' end
redis.call('RPUSH', KEYS[1], ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
hint(ARGV[5], 'live')
return 'sent'
