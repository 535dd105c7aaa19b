-- The fair queue. As long as one tenant's jobs fill RQ's list, jobs of other tenants wait in tenant queues, one for each
-- tenant, and claims take from the list and the tenant queues by round robin. So ten jobs of one tenant do not wait behind
-- ten thousand of another. A "lane" in the names below is a tenant queue, the "ring" is the round robin.
--
-- failover:lanes:{queue}: the round robin, next tenant first, '' being RQ's list; exists only while there are tenant queues
-- failover:lane:{queue}|{tenant}: a tenant queue   failover:filler:{queue}: the tenant whose jobs fill RQ's list
-- failover:first:{queue}: how many jobs at the head of the list go before all tenant queues
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

-- Add a job at the tail of the fair queue. Returns true if RQ's list was empty.
local function enter(list, id, tenant)
  if not tenant or tenant == '' then return redis.call('RPUSH', list, id) == 1 end
  local lane, ring = lane_of(list, tenant), ring_of(list)
  local laned, in_lane = redis.call('EXISTS', ring) == 1, redis.call('EXISTS', lane) == 1
  if not in_lane then
    local length, filler = redis.call('LLEN', list), 'failover:filler:' .. queue_of(list)
    if length == 0 then redis.call('SET', filler, tenant) end
    if (length < SHORT and not laned) or redis.call('GET', filler) == tenant then
      return redis.call('RPUSH', list, id) == 1
    end
  end
  if not laned then redis.call('SET', first_of(list), SHORT) end -- these go first: the tenant may have older jobs among them
  if not (laned and in_lane) then give_turn(ring, tenant) end
  redis.call('RPUSH', lane, id)
  return false
end

-- Add a job at the head of the fair queue, before all tenants. Returns true if RQ's list was empty.
local function enter_first(list, id)
  if redis.call('EXISTS', ring_of(list)) == 1 then redis.call('INCR', first_of(list)) end
  return redis.call('LPUSH', list, id) == 1
end

-- Add a job at the head of its tenant's own jobs. It was claimed before, so it goes before the tenant's other jobs.
local function enter_again(list, id, tenant)
  local lane = tenant and lane_of(list, tenant)
  redis.call('LPUSH', lane and redis.call('EXISTS', lane) == 1 and lane or list, id)
end

-- Remove and return the next job id; false if there is none.
local function take(list)
  local ring = ring_of(list)
  if redis.call('EXISTS', ring) == 0 then return redis.call('LPOP', list) end
  local first = first_of(list)
  if tonumber(redis.call('GET', first) or '0') > 0 then
    redis.call('DECR', first)
    local id = redis.call('LPOP', list)
    if id then return id end
  end
  for _ = 1, redis.call('LLEN', ring) + 1 do
    local tenant = redis.call('LPOP', ring)
    if not tenant then break end
    local lane = tenant == '' and list or lane_of(list, tenant)
    local id = redis.call('LPOP', lane)
    if tenant == '' or redis.call('EXISTS', lane) == 1 then redis.call('RPUSH', ring, tenant) end
    if redis.call('LLEN', ring) == 1 and redis.call('LINDEX', ring, 0) == '' then redis.call('DEL', ring, first) end
    if id then return id end
  end
  return redis.call('LPOP', list)
end

-- Remove a job from the fair queue. Slow: it searches a whole list.
local function leave(list, id, tenant)
  if redis.call('LREM', list, 0, id) == 0 and tenant then redis.call('LREM', lane_of(list, tenant), 0, id) end
end

-- Whether a job is in the fair queue. A tenant queue that is missing in the round robin is added to it again.
local function stands(list, id, tenant)
  if redis.call('LPOS', list, id) then return true end
  if not tenant or not redis.call('LPOS', lane_of(list, tenant), id) then return false end
  give_turn(ring_of(list), tenant)
  return true
end
