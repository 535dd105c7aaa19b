-- flags: allow-oom
-- Execute plain commands that must work on a full Redis, which refuses them outside of a script.
--
-- KEYS  for each command: its key
-- ARGV  for each command: its name, how many arguments follow its key, these arguments
-- Returns the replies.
local replies, at = {}, 1
for i, key in ipairs(KEYS) do
  local name, count = ARGV[at], tonumber(ARGV[at + 1])
  replies[i] = redis.call(name, key, unpack(ARGV, at + 2, at + 1 + count))
  at = at + 2 + count
end
return replies
