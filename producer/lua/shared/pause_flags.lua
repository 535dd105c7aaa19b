-- Reads and sets the pause flags, and stops and starts the queues' running clocks with them (running_clock.lua).

-- Read the flags for one worker: KEYS[1] pause_ai_tasks, KEYS[2] rq:suspended, its queues' flags from first_queue on at every
-- `step`th key, its providers' from first_provider on, then its routes'. Returns the flags in that order as 1 or 0 (the first
-- one stands for both keys that pause everything), whether everything is paused, whether every provider is.
local function flags_of(first_queue, step, queues, first_provider, providers)
  local all = set(redis.call('GET', KEYS[1])) or redis.call('EXISTS', KEYS[2]) == 1
  local flags, closed = {all and 1 or 0}, providers > 0
  for q = 0, queues - 1 do
    flags[#flags + 1] = set(redis.call('GET', KEYS[first_queue + q * step])) and 1 or 0
  end
  for i = first_provider, #KEYS do
    local paused = set(redis.call('GET', KEYS[i]))
    flags[#flags + 1] = paused and 1 or 0
    if i < first_provider + providers then closed = closed and paused end
  end
  return flags, all, closed
end

-- Update every queue's clock after a flag has changed. A clock that is stopped because all providers are paused is left to the
-- workers, which know the providers. Arguments: the keys pause_ai_tasks, rq:suspended, rq:queues.
local function stand_all(pause, suspended, queues)
  for _, key in ipairs(redis.call('SMEMBERS', queues)) do
    local queue = string.sub(key, string.len('rq:queue:') + 1)
    local clock_key = 'failover:stopped:' .. queue
    local held, ends_ms = held_by({pause, pause .. ':' .. queue, suspended})
    if held or redis.call('HGET', clock_key, 'by_providers') ~= '1' then stand(clock_key, held, ends_ms, false) end
  end
end

-- The tenant that a flag pauses; nil for another flag.
local function tenant_of(flag) return string.match(flag, '^failover:paused%-tenant:(.+)$') end

-- The tenants whose jobs may not start, as a set; nil if there is none. Their flags always have a note.
local function paused_tenants()
  local tenants
  for _, flag in ipairs(redis.call('HKEYS', 'failover:pause')) do
    local tenant = tenant_of(flag)
    if tenant and set(redis.call('GET', flag)) then
      tenants = tenants or {}
      tenants[tenant] = true
    end
  end
  return tenants
end

-- Update the running clock of the tenant that a flag pauses, after the flag has changed.
local function stand_tenant(flag)
  local tenant = tenant_of(flag)
  if not tenant then return end
  local held, ends_ms = held_by({flag})
  stand('failover:stopped-tenant:' .. tenant, held, ends_ms, false)
end

-- A flag's note, decoded. A note that was written by hand may be no valid JSON.
local function note_of(text)
  local is_json, note = pcall(cjson.decode, text or '{}')
  note = is_json and type(note) == 'table' and note or {}
  if type(note.who) ~= 'string' then note.who = nil end
  if type(note.why) ~= 'string' then note.why = '' end
  return note
end

-- Set a flag for `lasts` ms (0: until it is resumed), with its note (JSON: who, why, since). A flag that is set already is
-- never shortened. Its note stays if the new pause has no reason, or if a budget set the flag.
local function pause_flag(flag, notes, lasts, note, who, audit, control)
  local is_set = set(redis.call('GET', flag))
  local before = is_set and redis.call('HGET', notes, flag) or nil
  local new, old = cjson.decode(note), note_of(before)
  if is_set then
    local left = redis.call('PTTL', flag)
    lasts = (left == -1 or lasts == 0) and 0 or math.max(left, lasts)
    if old.who and (new.why == '' or old.who == 'budget') then
      new.who, new.why, new.since = old.who, old.why, old.since
    elseif old.who and new.who == 'budget' then
      new.why = new.why .. '; before it ' .. old.who .. ': ' .. old.why
    end
  end
  new['until'] = lasts > 0 and math.floor((now_ms + lasts) / 1000) or cjson.null
  if lasts > 0 then redis.call('SET', flag, '1', 'PX', lasts) else redis.call('SET', flag, '1') end
  local text = cjson.encode(new)
  redis.call('HSET', notes, flag, text)
  audited(audit, 'pause', who, 'flag', flag, 'note', text)
  hint(control, flag)
end

