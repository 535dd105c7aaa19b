-- The end of a job, for those who want to hear of it: the webhook ('*') and the callback of its tenant. One entry each, in the
-- script that ends the job; the oldest go when nobody fetches them.
local OUTBOX_KEPT = 100000
local function event(kind, id, job)
  if redis.call('EXISTS', 'failover:subscribers') == 0 then return end
  local tenant = redis.call('HGET', job, 'tenant') or '?'
  local wanted = redis.call('HMGET', 'failover:subscribers', '*', tenant)
  for i, subscriber in ipairs({'*', tenant}) do
    if wanted[i] then
      local outbox = 'failover:outbox:' .. subscriber
      redis.call('XADD', outbox, 'MAXLEN', '~', OUTBOX_KEPT, '*', 'event', kind, 'job', id, 'ms', now_ms)
      redis.call('EXPIRE', outbox, 172800) -- of a subscriber that is gone
    end
  end
end

