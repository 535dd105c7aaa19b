-- prelude: clock incident
-- flags: allow-oom
-- Open an incident, once across all workers.
--
-- KEYS  1 failover:incidents
-- ARGV  1 kind   2 subject   3 queue   4 opened (ms)   5 the first line of its story
-- Returns its id.
local id, new = open_incident(ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]))
if new then add_story(id, ARGV[5], tonumber(ARGV[4])) end
return id
