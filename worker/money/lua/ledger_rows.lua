-- The ledger's rows, one per attempt: thresholds of their scopes, limits of their routes, and how a row ends. KEYS and ARGV as in
-- ledger_sums.
local TICK_MS, TICKS = 250, 244 -- a minute plus a second, because calls reach a provider with varying delay

-- {spent, ambiguous, held, tokens, held tokens} of a scope.
local function sums_of_scope(month, scope)
  return unpack(sums_now(sums_of(month), {'spent:' .. scope, 'ambiguous:' .. scope, 'held:' .. scope, 'tokens:' .. scope,
    'held-tokens:' .. scope})) -- an unreadable sum raises: it must not count as zero
end

-- Record the alert threshold that a scope has reached, when it changes. `cap`: {hard, basis of the percentages, tokens}, -1
-- for none. `wanted`: {micro-dollars, tokens} of a refused call; the scope is full until so much is left.
local function note_threshold(month, scope, cap, wanted)
  if not sums_of(month) then return end
  local spent, ambiguous, _, tokens, _ = sums_of_scope(month, scope)
  spent = spent + ambiguous
  local raw = redis.call('HGET', REACHED .. month, scope)
  local before = raw and read(raw) or {step = 0, full = false}
  local percent, step = 0, 0
  if cap[2] >= 0 then percent = cap[2] == 0 and 100 or 100 * spent / cap[2] end
  for _, each in ipairs(THRESHOLDS) do
    if percent >= each then step = each end
  end
  wanted = wanted or (before.full and before.wanted) or nil
  local full = wanted ~= nil and ((cap[1] >= 0 and spent + wanted[1] > cap[1])
    or (cap[3] >= 0 and tokens + wanted[2] > cap[3]))
  local same = raw and before.hard == cap[1] and before.basis == cap[2] and before.tokens == cap[3]
  if step == before.step and full == before.full and (same or not raw) then return end
  if step == 0 and not full then
    redis.call('HDEL', REACHED .. month, scope)
    return
  end
  redis.call('HSET', REACHED .. month, scope, cjson.encode({step = step, full = full, basis = cap[2], hard = cap[1],
    tokens = cap[3], spent = spent, wanted = wanted or {0, 0}, at = now_ms}))
  redis.call('EXPIRE', REACHED .. month, KEEP_REACHED)
end

-- Whether `cap` is the scope's newest cap (a call that begins sets it): calls that began under an older one do not count.
local function in_force(month, scope, cap, begins)
  local key, terms = sums_of(month), table.concat(cap, '/')
  if not key then return false end
  local known = redis.call('HGET', key, 'terms:' .. scope)
  if begins and known ~= terms then
    redis.call('HSET', key, 'terms:' .. scope, terms)
    redis.call('HSET', FOLDED .. month, 'terms:' .. scope, terms) -- if the sums are lost, it is known what was capped
    redis.call('EXPIRE', FOLDED .. month, KEEP_SUMS)
  end
  return begins or known == terms
end

-- Drop the ticks of a limit's window that are older than a minute. Returns requests, tokens, first tick that counts, now's tick.
local function slide(key)
  local tick = math.floor(now_ms / TICK_MS)
  local first = tick - TICKS + 1
  local window = redis.call('HMGET', key, 'requests', 'tokens', 'from')
  local requests, tokens, from = tonumber(window[1] or '0'), tonumber(window[2] or '0'), tonumber(window[3] or first)
  if not (requests and tokens and from) or from < first - TICKS or from > first + TICKS then
    redis.call('DEL', key)
    requests, tokens = 0, 0
  else
    for old = from, first - 1 do
      local gone = redis.call('HMGET', key, 'r' .. old, 't' .. old)
      if gone[1] then
        requests, tokens = requests - tonumber(gone[1]), tokens - (tonumber(gone[2] or '0') or 0)
        redis.call('HDEL', key, 'r' .. old, 't' .. old)
      end
    end
  end
  redis.call('HSET', key, 'requests', whole(requests), 'tokens', whole(tokens), 'from', first)
  redis.call('EXPIRE', key, 3600)
  return requests, tokens, first, tick
end

-- The number of calls that run under a limit. At the limit, entries without a row any more are removed first.
local function open_of(key, most)
  local open = key .. ':open'
  if redis.call('ZCARD', open) < most then return redis.call('ZCARD', open) end
  for _, id in ipairs(redis.call('ZRANGE', open, 0, -1)) do
    if not running_row(id) then redis.call('ZREM', open, id) end
  end
  return redis.call('ZCARD', open)
end

-- Milliseconds until a limit {name, requests a minute, tokens a minute, calls at once}, each -1 for none, has a free slot; and
-- whether only the call's tokens are in the way, so that a call with fewer tokens would have a slot sooner.
local function wait_ms(limit, asked)
  local key = LIMIT .. limit[1]
  local requests, tokens, first, tick = slide(key)
  local function fits()
    return (limit[2] < 0 or requests < limit[2]) and (limit[3] < 0 or tokens <= 0 or tokens + asked <= limit[3])
  end
  if limit[4] >= 0 and open_of(key, limit[4]) >= limit[4] then return TICK_MS, false end
  if fits() then return 0, false end
  local for_tokens = limit[2] < 0 or requests < limit[2]
  for old = first, tick do
    local goes = redis.call('HMGET', key, 'r' .. old, 't' .. old)
    requests, tokens = requests - tonumber(goes[1] or '0'), tokens - tonumber(goes[2] or '0')
    if fits() then return math.max(1, (old + TICKS) * TICK_MS - now_ms), for_tokens end
  end
  return TICKS * TICK_MS, for_tokens
end

local function occupy(limit, asked, id)
  local key, tick = LIMIT .. limit[1], math.floor(now_ms / TICK_MS)
  redis.call('HINCRBY', key, 'requests', 1)
  redis.call('HINCRBY', key, 'r' .. tick, 1)
  redis.call('HINCRBY', key, 'tokens', asked)
  redis.call('HINCRBY', key, 't' .. tick, asked)
  redis.call('ZADD', key .. ':open', now_ms, id)
  redis.call('EXPIRE', key .. ':open', 86400)
  return tick
end

-- The call has ended: free its slot, and count its real tokens in place of the reserved ones.
local function vacate(row, tokens)
  for _, limit in ipairs(row.limits) do
    local key, tick = LIMIT .. limit[1], 't' .. limit[2]
    redis.call('ZREM', key .. ':open', row.id)
    if redis.call('HEXISTS', key, tick) == 1 then
      redis.call('HINCRBY', key, tick, whole(tokens - row.tokens))
      redis.call('HINCRBY', key, 'tokens', whole(tokens - row.tokens))
    end
    redis.call('EXPIRE', key, 3600)
  end
end

-- Move the row to its last key: the month's ledger, or its ambiguous rows.
local function file(row, state, micros, prompt, completion)
  row.state, row.micros = state, micros
  if state == 'ambiguous' then
    redis.call('HSET', AMBIGUOUS .. row.month, row.id, cjson.encode(row))
    keep(AMBIGUOUS .. row.month, KEEP_SUMS)
    move(row, 'ambiguous', 1)
  else
    row.tokens = prompt + completion
    local key = LEDGER .. row.month
    redis.call('XADD', key, '*', 'id', row.id, 'state', state, 'at', row.at, 'micros', whole(micros),
      'prompt', prompt, 'completion', completion, 'job', row.job, 'tenant', row.tenant, 'user', row.user,
      'feature', row.feature, 'provider', row.provider, 'route', row.route, 'model', row.model, 'price', row.price,
      'own', row.own)
    keep(key, KEEP_SUMS)
    move(row, 'spent', 1)
  end
  for scope, cap in pairs(row.caps) do
    if in_force(row.month, scope, cap, false) then note_threshold(row.month, scope, cap, nil) end
  end
end

-- Close the row of a call that ran. The sums are read first: if they are lost, they are counted while the row is still there.
local function close(row, state, micros, prompt, completion)
  sums_of(row.month)
  set_running(row.id, false)
  move(row, 'held', -1)
  vacate(row, state == 'ambiguous' and row.tokens or prompt + completion)
  file(row, state, micros, prompt, completion)
end
