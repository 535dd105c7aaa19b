-- prelude: clock hint breaker
-- flags: allow-oom
-- Apply one worker's report: the results of its attempts since the last report, in order. Extend the leases of its probes,
-- and return the state of all its routes.
--
-- KEYS  1 failover:recorded:{worker}   then for each route: failover:breaker:{route}   failover:calls:{route}
-- ARGV  1 number of this report   2 channel   3 failures that open   4 successes that close   5 shortest cooldown (ms)
--       6 longest cooldown (ms)   7 probe lease (ms)   8 calls kept   9 sole job's grace (ms)
--       10 JSON: for each route {route, probe held or '', {observation, ...}}, an observation being
--          {kind: 'ok' | 'failed' | 'neutral' | 'unused', epoch, probe token or '', job, ms, rest (ms), why}
-- Returns the breakers as in `as_json`, one for each route.
-- Invariant: a report counts once, even when it is resent. ARGV 3 failures in a row open the route for all workers. The
--            result of a probe counts only while it holds its lease; the result of an attempt that was admitted before the
--            breaker opened does not count.
local FAILURES, SUCCESSES = tonumber(ARGV[3]), tonumber(ARGV[4])
local again = redis.call('GET', KEYS[1]) == ARGV[1]
local COOLDOWN, LONGEST, LEASE = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

local function open(breaker, cooldown)
  breaker.state, breaker.epoch, breaker.failures, breaker.streak = 'open', breaker.epoch + 1, 0, ''
  breaker.successes, breaker.probe = 0, ''
  breaker.cooldown_ms, breaker.opens_ms = cooldown, now_ms + cooldown
end

local function probed(breaker, kind)
  breaker.probe = ''
  if kind == 'failed' then
    open(breaker, math.min(breaker.cooldown_ms * 2, LONGEST))
  elseif kind == 'neutral' then
    breaker.opens_ms = now_ms + breaker.cooldown_ms
  elseif kind == 'ok' then
    breaker.successes, breaker.succeeded_ms = breaker.successes + 1, now_ms
    if breaker.successes >= SUCCESSES then
      breaker.state, breaker.opens_ms, breaker.cooldown_ms = 'closed', 0, 0
    end
  end
end

-- One job's own retries are no evidence against a route that answered other jobs within the grace (ARGV 9): the count then
-- stays one below the number that opens.
local function failed(breaker, job)
  breaker.streak = (breaker.failures == 0 or breaker.streak == job) and job or '*'
  breaker.failures = breaker.failures + 1
  if breaker.failures < FAILURES then return end
  local alone = breaker.streak ~= '*' and breaker.streak ~= ''
  if alone and breaker.succeeded_ms > now_ms - tonumber(ARGV[9]) then
    breaker.failures = FAILURES - 1
  else
    open(breaker, COOLDOWN)
  end
end

-- Apply one observation. Returns whether anything changed that other workers need, or that the next failure depends on.
local function observe(breaker, seen)
  local changed = false
  if seen.rest > 0 and now_ms + seen.rest > breaker.rests_until_ms then
    if seen.why ~= breaker.rests_for or breaker.succeeded_ms >= breaker.rests_since_ms then
      breaker.rests_since_ms = now_ms  -- else the same trouble goes on
    end
    breaker.rests_until_ms, breaker.rests_for = now_ms + seen.rest, seen.why
    changed = true
  end
  if seen.probe ~= '' then
    if breaker.probe ~= seen.probe or breaker.state ~= 'open' then return changed end
    probed(breaker, seen.kind)
    return true
  end
  if seen.epoch ~= breaker.epoch or breaker.state ~= 'closed' then return changed end
  if seen.kind == 'failed' then
    failed(breaker, seen.job)
    return true
  end
  if seen.kind == 'ok' then
    changed = changed or breaker.failures > 0 or breaker.succeeded_ms < now_ms - 1000
    breaker.failures, breaker.streak, breaker.succeeded_ms = 0, '', now_ms
  end
  return changed
end

local reply = {}
for i, entry in ipairs(cjson.decode(ARGV[10])) do
  local key, calls_key = KEYS[2 * i], KEYS[2 * i + 1]
  local route, held, seen = entry[1], entry[2], entry[3]
  local breaker, changed, calls = read(key), false, {}
  if held ~= '' and breaker.probe == held then
    breaker.probe_until_ms = now_ms + LEASE
    redis.call('HSET', key, 'probe_until_ms', breaker.probe_until_ms)
  end
  for _, observation in ipairs(again and {} or seen) do
    changed = observe(breaker, observation) or changed
    if observation.kind == 'ok' or observation.kind == 'failed' then
      calls[#calls + 1] = (observation.kind == 'ok' and '+' or '-') .. observation.ms .. '@' .. math.floor(now_ms / 1000)
    end
  end
  if changed then write(key, route, breaker, ARGV[2]) end
  if #calls > 0 then
    redis.call('LPUSH', calls_key, unpack(calls))
    redis.call('LTRIM', calls_key, 0, tonumber(ARGV[8]) - 1)
    redis.call('EXPIRE', calls_key, KEEP_SECONDS)
  end
  reply[i] = as_json(route, breaker)
end
if not again then redis.call('SET', KEYS[1], ARGV[1], 'EX', 3600) end
return reply
