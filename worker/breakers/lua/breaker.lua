-- One route's breaker, shared by all workers. It is open until `opens_ms`, then half-open until successful probes close it.
--
-- The hash: state (closed | open), version (counts changes), epoch (counts openings and restores), failures (in a row),
-- streak (the job of these failures, '*' for several), succeeded_ms, successes (of probes in a row), cooldown_ms, opens_ms,
-- probe (token), probe_until_ms, rests_until_ms, rests_for and rests_since_ms (the route's own cooldown, which a provider
-- asked for or a wrong account needs, its reason, and when that reason came first). No hash: closed and never used.
local FIELDS = {'state', 'version', 'epoch', 'failures', 'streak', 'succeeded_ms', 'successes', 'cooldown_ms',
  'opens_ms', 'probe', 'probe_until_ms', 'rests_until_ms', 'rests_for', 'rests_since_ms'}
local TEXTS = {state = 'closed', streak = '', probe = '', rests_for = ''}
local KEEP_SECONDS = 7 * 86400

local function read(key)
  local breaker = {}
  for i, value in ipairs(redis.call('HMGET', key, unpack(FIELDS))) do
    local name = FIELDS[i]
    breaker[name] = TEXTS[name] and (value or TEXTS[name]) or (not TEXTS[name] and tonumber(value or 0) or 0)
  end
  if breaker.state ~= 'open' then breaker.state = 'closed' end
  return breaker
end

-- The breaker's state for workers, in JSON. Times are milliseconds from now, so that clocks need not agree.
local function as_json(route, breaker)
  return cjson.encode({route = route, version = breaker.version, epoch = breaker.epoch, state = breaker.state,
    opens_in = math.max(0, breaker.opens_ms - now_ms), probe = breaker.probe,
    probe_in = breaker.probe ~= '' and math.max(0, breaker.probe_until_ms - now_ms) or 0,
    rests_in = math.max(0, breaker.rests_until_ms - now_ms), rests_for = breaker.rests_for})
end

-- Save a changed breaker and publish it to all workers.
local function write(key, route, breaker, channel)
  breaker.version = breaker.version + 1
  local flat = {}
  for _, name in ipairs(FIELDS) do
    flat[#flat + 1] = name
    flat[#flat + 1] = breaker[name]
  end
  redis.call('HSET', key, unpack(flat))
  redis.call('EXPIRE', key, KEEP_SECONDS)
  hint(channel, as_json(route, breaker))
end

