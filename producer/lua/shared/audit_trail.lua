-- Writes one entry of the audit trail, failover:audit: who did what. Only its last 100,000 entries are kept.
-- Further arguments: names and values of the action's own fields.
local function audited(audit, action, who, ...)
  redis.call('XADD', audit, 'MAXLEN', '~', 100000, '*', 'action', action, 'who', who, ...)
end
