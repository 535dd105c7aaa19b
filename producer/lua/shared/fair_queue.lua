-- The line in which a queue's jobs wait. It is RQ's list, for as long as one tenant fills it; jobs of others that come then
-- wait in lanes of their own, one for each tenant, and claims take from the list and the lanes in turn. So ten jobs of one
-- tenant do not wait behind ten thousand of another.
--
-- failover:lanes:{queue}: whose turn is next, '' being the list; there only while there are lanes
-- failover:lane:{queue}|{tenant}   failover:filler:{queue}: the tenant that fills the list
-- failover:first:{queue}: how many at the head of the list go before all lanes
local SHORT = 20 -- so few jobs are a line that nobody minds

local function queue_of(list) return string.sub(list, string.len('rq:queue:') + 1) end
local function ring_of(list) return 'failover:lanes:' .. queue_of(list) end
local function first_of(list) return 'failover:first:' .. queue_of(list) end
local function lane_of(list, tenant) return 'failover:lane:' .. queue_of(list) .. '|' .. tenant end

-- Claims look into the tenant's lane when its turn comes.
local function give_turn(ring, tenant)
  if redis.call('EXISTS', ring) == 0 then redis.call('RPUSH', ring, '') end
  if not redis.call('LPOS', ring, tenant) then redis.call('RPUSH', ring, tenant) end
end

-- At the end of the line. Returns true if the list was empty.
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
  if not laned then redis.call('SET', first_of(list), SHORT) end -- each tenant's jobs keep their order: some may be among these
  if not (laned and in_lane) then give_turn(ring, tenant) end
  redis.call('RPUSH', lane, id)
  return false
end

-- At the head of the line, before everybody. Returns true if the list was empty.
local function enter_first(list, id)
  if redis.call('EXISTS', ring_of(list)) == 1 then redis.call('INCR', first_of(list)) end
  return redis.call('LPUSH', list, id) == 1
end

-- At the head of its tenant's own jobs, for what waited for a while and whose turn it was.
local function enter_again(list, id, tenant)
  local lane = tenant and lane_of(list, tenant)
  redis.call('LPUSH', lane and redis.call('EXISTS', lane) == 1 and lane or list, id)
end

-- The next one in the line, false if there is none.
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

-- Out of the line, wherever it stands in it. Slow: a whole list.
local function leave(list, id, tenant)
  if redis.call('LREM', list, 0, id) == 0 and tenant then redis.call('LREM', lane_of(list, tenant), 0, id) end
end

-- Whether it stands in the line; a lane that nobody would look into gets its turn again.
local function stands(list, id, tenant)
  if redis.call('LPOS', list, id) then return true end
  if not tenant or not redis.call('LPOS', lane_of(list, tenant), id) then return false end
  give_turn(ring_of(list), tenant)
  return true
end
