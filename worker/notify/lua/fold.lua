-- prelude: clock count incident
-- flags: allow-oom
-- Move the counts since the last call into incidents. Opens an incident if none is open.
--
-- KEYS  1 failover:news:{queue}   2 failover:news:{queue}:first
-- ARGV  1 queue   2 '1' to keep the saved jobs for an outage that is about to be opened
--       3 id of the open outage that is credited with saved, degraded and dead jobs; left out when there is none
-- Returns nothing.
-- Invariant: each job is counted once, also if several workers call this.
local news = redis.call('HGETALL', KEYS[1])
if #news == 0 then return end
local counts, texts = {}, {} -- read before anything is written: a script does not roll back
for i = 1, #news, 2 do
  local count = tonumber(news[i + 1])
  if news[i] == 'example' or news[i] == 'since_ms' then texts[news[i]] = news[i + 1]
  elseif count then counts[news[i]] = count end
end
local ids = {}
local function incident(kind)
  if not ids[kind] then
    local since = kind == 'dead_letters' and tonumber(texts.since_ms or '') or now_ms
    local id, new = open_incident(kind, '', ARGV[1], since)
    if new then add_story(id, kind == 'dead_letters' and 'the first dead letters' or 'the first degraded answers') end
    redis.call('HSET', 'failover:incident:' .. id, 'last_ms', now_ms)
    ids[kind] = id
  end
  return 'failover:incident:' .. ids[kind]
end

local function credit(field, more)
  if ARGV[3] then count('failover:incident:' .. ARGV[3], field, more) end
end

for field, more in pairs(counts) do
  if field == 'saved' then
    credit(field, more)
  elseif string.sub(field, 1, 4) == 'dead' then
    count(incident('dead_letters'), field, more)
  elseif ARGV[3] then -- the open outage explains the degraded answers
    credit(field, more)
  else
    count(incident('degraded'), field, more)
  end
end
if ids.dead_letters and texts.example then redis.call('HSETNX', incident('dead_letters'), 'example', texts.example) end
local first = redis.call('LRANGE', KEYS[2], 0, -1)
if ids.dead_letters and #first > 0 then
  local key = incident('dead_letters')
  local known = redis.call('HGET', key, 'first')
  if not known then redis.call('HSET', key, 'first', table.concat(first, ' ')) end
end
if counts.dead then credit('dead', counts.dead) end
redis.call('DEL', KEYS[1], KEYS[2])
if counts.saved and not ARGV[3] and ARGV[2] == '1' then redis.call('HSET', KEYS[1], 'saved', counts.saved) end
