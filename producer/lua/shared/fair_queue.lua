-- The fair queue. As long as one tenant's jobs fill RQ's list, jobs of other tenants wait in tenant queues, one for each
-- tenant, and claims take from the list and the tenant queues by round robin. So ten jobs of one tenant do not wait behind
-- ten thousand of another. A "lane" in the names below is a tenant queue, the "ring" is the round robin.
--
-- failover:lanes:{queue}: the round robin, next tenant first, '' being RQ's list; exists only while there are tenant queues
-- failover:lane:{queue}|{tenant}: a tenant queue   failover:filler:{queue}: the tenant whose jobs fill RQ's list
-- failover:first:{queue}: how many jobs at the head of the list go before all tenant queues
--
-- The jobs of a paused tenant wait in its tenant queue, whose turn is skipped. Those in RQ's list are moved there when they
-- come to its head.
local SEARCHED = 1000 -- entries at each end of a list
local SHORT = 20 -- jobs; tenants share a shorter list without tenant queues, because nobody waits long in it

local function queue_of(list) return string.sub(list, string.len('rq:queue:') + 1) end
local function ring_of(list) return 'failover:lanes:' .. queue_of(list) end
local function first_of(list) return 'failover:first:' .. queue_of(list) end
local function lane_of(list, tenant) return 'failover:lane:' .. queue_of(list) .. '|' .. tenant end

-- Add a tenant to the round robin, so that claims take from its tenant queue.
local function give_turn(ring, tenant)
  if redis.call('EXISTS', ring) == 0 then redis.call('RPUSH', ring, '') end
  if not redis.call('LPOS', ring, tenant) then redis.call('RPUSH', ring, tenant) end
end

-- Add a job at the tail of the fair queue. Returns true if RQ's list was empty, and the list that holds the job.
local function enter(list, id, tenant)
  if not tenant or tenant == '' then return redis.call('RPUSH', list, id) == 1, list end
  local lane, ring, filler = lane_of(list, tenant), ring_of(list), 'failover:filler:' .. queue_of(list)
  local laned, in_lane = redis.call('EXISTS', ring) == 1, redis.call('EXISTS', lane) == 1
  local length = redis.call('LLEN', list)
  if not in_lane and length == 0 then redis.call('SET', filler, tenant) end
  -- The filler has a tenant queue only after a pause: while it has jobs in the list too, later ones follow these.
  if (not in_lane and length < SHORT and not laned) or
      ((length > 0 or not in_lane) and redis.call('GET', filler) == tenant) then
    return redis.call('RPUSH', list, id) == 1, list
  end
  if not laned then redis.call('SET', first_of(list), SHORT) end -- these go first: the tenant may have older jobs among them
  if not (laned and in_lane) then give_turn(ring, tenant) end
  redis.call('RPUSH', lane, id)
  return false, lane
end

-- Add a job at the head of the fair queue, before all tenants. Returns true if RQ's list was empty.
local function enter_first(list, id)
  if redis.call('EXISTS', ring_of(list)) == 1 then redis.call('INCR', first_of(list)) end
  return redis.call('LPUSH', list, id) == 1
end

-- Remove and return the next job id of RQ's list; false if there is none. Jobs of paused tenants before it are moved to their
-- tenant queues. `paused`: {tenants: a set, left: how many jobs may be moved}, or nil.
local function take_from_list(list, paused)
  local id = redis.call('LPOP', list)
  while id and paused do
    local tenant = redis.pcall('HGET', 'rq:job:' .. id, 'tenant')
    if type(tenant) ~= 'string' or not paused.tenants[tenant] then return id end
    if paused.left == 0 then
      redis.call('LPUSH', list, id)
      return false
    end
    paused.left = paused.left - 1
    local lane = lane_of(list, tenant)
    if redis.call('RPUSH', lane, id) == 1 then give_turn(ring_of(list), tenant) end
    id = redis.call('LPOP', list)
  end
  return id
end

-- Remove and return the next job id; false if there is none. `paused`: as for take_from_list.
local function take(list, paused)
  local ring = ring_of(list)
  if redis.call('EXISTS', ring) == 0 then return take_from_list(list, paused) end
  local first = first_of(list)
  if tonumber(redis.call('GET', first) or '0') > 0 then
    redis.call('DECR', first)
    local id = take_from_list(list, paused)
    if id then return id end
  end
  for _ = 1, redis.call('LLEN', ring) + 1 do
    local tenant = redis.call('LPOP', ring)
    if not tenant then break end
    local lane, id = lane_of(list, tenant), false
    if tenant == '' then
      id = take_from_list(list, paused)
    elseif not (paused and paused.tenants[tenant]) then
      id = redis.call('LPOP', lane)
    end
    if tenant == '' or redis.call('EXISTS', lane) == 1 then redis.call('RPUSH', ring, tenant) end
    if redis.call('LLEN', ring) == 1 and redis.call('LINDEX', ring, 0) == '' then redis.call('DEL', ring, first) end
    if id then return id end
  end
  return take_from_list(list, paused)
end

-- Two functions: one is `take`, again and again; call the other one after the last. Without a round robin and paused tenants,
-- entries are read and removed many at once, at most `at_once`.
local function taking(list, paused, at_once)
  if paused or redis.call('EXISTS', ring_of(list)) == 1 then
    return function() return take(list, paused) end, function() end
  end
  local ids, taken = {}, 0
  local function remove()
    if taken > 0 then redis.call('LPOP', list, taken) end
    taken = 0
  end
  local function next_id()
    if taken == #ids then
      remove()
      ids = redis.call('LRANGE', list, 0, at_once - 1)
    end
    taken = math.min(taken + 1, #ids)
    return ids[taken] or false
  end
  return next_id, remove
end

-- Remove a job from the fair queue, if it stands near an end of its list: to search all of a long list would block Redis.
-- Elsewhere its entry stays there; claim skips it, because the job is not queued any more.
local function leave(list, id, tenant)
  for _, key in ipairs({list, tenant and lane_of(list, tenant)}) do
    for _, from in ipairs({1, -1}) do -- the head, the tail
      if redis.call('LPOS', key, id, 'RANK', from, 'MAXLEN', SEARCHED) then return redis.call('LREM', key, from, id) end
    end
  end
end

-- Whether a job is in the fair queue. A tenant queue that is missing in the round robin is added to it again.
local function stands(list, id, tenant)
  if redis.call('LPOS', list, id) then return true end
  if not tenant or not redis.call('LPOS', lane_of(list, tenant), id) then return false end
  give_turn(ring_of(list), tenant)
  return true
end
