-- The end of a job, for those who want to hear of it: the webhook ('*') and the callback of its tenant. One entry each, in the
-- script that ends the job; the oldest go when nobody fetches them.
local OUTBOX_KEPT = 100000
local function event(kind, id, job)
  if redis.call('EXISTS', 'failover:subscribers') == 0 then return end
  local tenant = redis.call('HGET', job, 'tenant') or '?'
  local wanted = redis.call('HMGET', 'failover:subscribers', '*', tenant)
  for i, subscriber in ipairs({'*', tenant}) do
    if wanted[i] then
      redis.call('XADD', 'failover:outbox:' .. subscriber, 'MAXLEN', '~', OUTBOX_KEPT, '*', 'event', kind, 'job', id, 'ms', now_ms)
    end
  end
end

