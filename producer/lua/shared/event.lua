-- Records the end of a job for its subscribers: the webhook ('*') and the callback of its tenant. The script that ends the job
-- adds one entry per subscriber; when nobody reads the outbox, the oldest entries are dropped. An entry that cannot be written
-- (`pcall`: another tool wrote the key) never fails the outcome.
local OUTBOX_KEPT = 100000
local is_subscribed -- whether anybody is; asked once in a script
local function event(kind, id, tenant)
  if is_subscribed == nil then is_subscribed = redis.call('EXISTS', 'failover:subscribers') == 1 end
  if not is_subscribed then return end
  tenant = tenant or '?'
  local wanted = redis.pcall('HMGET', 'failover:subscribers', '*', tenant)
  for i, subscriber in ipairs({'*', tenant}) do
    if wanted[i] then
      local outbox = 'failover:outbox:' .. subscriber
      redis.pcall('XADD', outbox, 'MAXLEN', '~', OUTBOX_KEPT, '*', 'event', kind, 'job', id, 'ms', now_ms)
      redis.call('EXPIRE', outbox, 172800) -- in case the subscriber is gone
    end
  end
end

