-- prelude: happened audit_trail
-- flags: allow-oom
-- A person has seen lost jobs: they leave the list.
--
-- KEYS  1 failover:quarantine   2 failover:audit
-- ARGV  1 who   2.. fields of the hash
-- Returns how many left it.
local gone = {}
for i = 2, #ARGV do
  if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then
    happened(cjson.encode({kind = 'discarded'})) -- whose it was is lost, too
    gone[#gone + 1] = ARGV[i]
  end
end
if #gone > 0 then audited(KEYS[2], 'discard lost', ARGV[1], 'jobs', table.concat(gone, ' ')) end
return #gone
