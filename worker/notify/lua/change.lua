-- prelude: clock incident
-- flags: allow-oom
-- Change an incident if its field still has the value that was read: of two workers with the same change, one makes it.
--
-- KEYS  1 failover:incident:{id}
-- ARGV  1 id   2 field   3 its value as known ('' for none)   4 its new value   5 more fields (JSON object)   6 lines for the story
--       (JSON array)
-- Returns 1 if it was changed.
if (redis.call('HGET', KEYS[1], ARGV[2]) or '') ~= ARGV[3] then return 0 end
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local more, story = cjson.decode(ARGV[5]), cjson.decode(ARGV[6])
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
for field, value in pairs(more) do redis.call('HSET', KEYS[1], field, value) end
for _, text in ipairs(story) do add_story(ARGV[1], text) end
return 1
