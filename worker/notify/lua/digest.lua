-- prelude: clock
-- flags: allow-oom
-- A digest of all that conditions and incidents are read from. While it stays the same, a step of the notifier finds the same.
--
-- KEYS  1 pause_ai_tasks   2 rq:suspended   3 failover:pause   4 rq:queues   5 rq:workers   6 failover:ladder:{month}   7 failover:spend
--       8 failover:quarantine   9 failover:incidents   10 failover:incidents:untold
--       then for each queue: pause_ai_tasks:{q}   rq:queue:{q}   failover:lanes:{q}   failover:accepted:{q}:promised   failover:news:{q}
--       then for each route: failover:breaker:{r}
-- ARGV  1 how many queues   2 jobs are late so long after their promise (ms)   3 a longer queue may be a flood
--       4 rq:worker:   5 failover:routes:
-- Returns text.
-- Invariant: it changes with every change after which a condition may begin or end. Times of heartbeats and of answers are not
--            in it.
local found = {}
local function add(...)
  for _, value in ipairs({...}) do
    found[#found + 1] = type(value) == 'table' and cjson.encode(value) or tostring(value)
  end
end

local notes = redis.call('HGETALL', KEYS[3])
add(redis.call('GET', KEYS[1]), redis.call('EXISTS', KEYS[2]), notes)
for i = 1, #notes, 2 do add(redis.call('GET', notes[i])) end
add(redis.call('SMEMBERS', KEYS[4]))
for _, key in ipairs(redis.call('SMEMBERS', KEYS[5])) do
  add(key, redis.call('EXISTS', key), redis.call('GET', ARGV[5] .. string.sub(key, #ARGV[4] + 1)))
end
add(redis.call('HGETALL', KEYS[6]), redis.call('HGETALL', KEYS[7]), redis.call('HLEN', KEYS[8]))
add(redis.call('HLEN', KEYS[9]), redis.call('SCARD', KEYS[10]))
local queues, most = tonumber(ARGV[1]), tonumber(ARGV[3])
for at = 11, 10 + 5 * queues, 5 do
  add(redis.call('GET', KEYS[at]), redis.call('ZCOUNT', KEYS[at + 3], '-inf', now_ms - tonumber(ARGV[2])))
  add(redis.call('HLEN', KEYS[at + 4]))
  if redis.call('LLEN', KEYS[at + 1]) > most or redis.call('EXISTS', KEYS[at + 2]) == 1 then add(now_ms) end -- perhaps a flood
end
for at = 11 + 5 * queues, #KEYS do
  add(redis.call('HMGET', KEYS[at], 'state', 'opens_ms', 'rests_until_ms', 'rests_for'))
end
return redis.sha1hex(table.concat(found, '\n'))
