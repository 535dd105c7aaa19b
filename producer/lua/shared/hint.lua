-- Tell other processes that something changed, so that they need not wait for their next poll. A hint never fails a script:
-- its writes are done, and scripts do not roll back. PUBLISH is refused to a Redis user without channels (Redis 7's default).
local function hint(channel, message) redis.pcall('PUBLISH', channel, message) end
