-- prelude: clock hint key_types audit_trail running_clock pause_flags fair_queue leaves lost
-- flags: allow-oom
-- Claim up to n queued jobs for one worker, highest queue first.
--
-- KEYS  1 pause_ai_tasks   2 rq:suspended   3 failover:claim:{token}   4 rq:worker:{name}
--       then for each queue: rq:queue:{q}   pause_ai_tasks:{q}   failover:leases:{q}   rq:wip:{q}   failover:accepted:{q}
--       failover:stopped:{q}   then for each provider of the worker's routes: failover:paused-provider:{p}
--       then for each route: failover:disabled:{r}
-- ARGV  1 token   2 n   3 lease (ms)   4 worker name   5 rq:job:   6 rq:execution:   7 rq:executions:   8 bytes of job data after which to stop
--       9 how many queues   10 how many providers   11 bytes of uncompressed job data after which to stop   12.. queue names
-- Returns {now (ms), {1 or 0 for everything, for each queue, for each provider, for each route}, 1 if it stopped before it had
--         looked at all entries, claim, ...}, a claim being
--         {job id, execution id, queue, data, accepted_ms, expires_ms (later by the time its queue was paused), executions,
--         crashes, attempts, run_ms, suspect, size, trail}
-- Invariant: nothing is claimed while everything, the queue, every provider or its tenant is paused. A job that leaves the queue gets a
--            lease. An entry whose job is not queued (cancelled, ended, deleted) is removed; an accepted one that cannot be
--            read is lost (lost.lua). A resend of the token returns what the first call claimed, as far as it is still leased.
local SKIPPED_AT_MOST = 500 -- entries of jobs that are not queued any more, which one claim removes: about 3 ms
local CLAIMED_AT_MOST = 2000 -- each is two arguments of one command, and Lua passes some 8,000 at most
local TAKEN_AT_ONCE = 100 -- entries of the list
local ASIDE_AT_MOST = 100 -- jobs of paused tenants that one claim moves: about 2 ms
local queues = tonumber(ARGV[9])
local flags, all, closed = flags_of(6, 6, queues, 5 + 6 * queues, tonumber(ARGV[10]))

local reply, bytes, size = {now_ms, flags, 0}, 0, 0
local READ = {'status', 'data', 'accepted_ms', 'expires_ms', 'executions', 'crashes', 'attempts', 'run_ms', 'suspect', 'size',
  'trail', 'stopped_ms', 'tenant', 'tenant_stopped_ms', 'lease'}
local stopped = {} -- running clock -> how long it stood still, read once in this script
local function stopped_of(clock_key)
  stopped[clock_key] = stopped[clock_key] or stopped_ms(clock_key)
  return stopped[clock_key]
end

local function answer(id, execution, queue, clock_key, job)
  local expires = tonumber(job[4] or '')
  if expires then
    job[4] = expires + stopped_of(clock_key) - (tonumber(job[12] or '') or 0) + tenant_stopped_ms(job[13], job[14], stopped_of)
  end
  reply[#reply + 1] = {id, execution, queue, unpack(job, 2, 11)}
  bytes, size = bytes + #(job[2] or ''), size + (tonumber(job[10] or '') or 0)
end

local before = redis.call('GET', KEYS[3])
if before then
  for _, claim in ipairs(cjson.decode(before)) do
    local job = redis.call('HMGET', ARGV[5] .. claim[1], unpack(READ))
    if job[15] == claim[2] then answer(claim[1], claim[2], claim[3], claim[4], job) end
  end
  return reply
end
if all or closed then return reply end

local now = iso(now_ms)
local seconds, day = string.format('%.3f', now_ms / 1000), math.floor(now_ms / 1000) + 86400
local left = math.min(tonumber(ARGV[2]), CLAIMED_AT_MOST)
local claims, skips = {}, SKIPPED_AT_MOST
local tenants = paused_tenants()
local paused = tenants and {tenants = tenants, left = ASIDE_AT_MOST}
for q = 1, queues do
  local queue, base = ARGV[11 + q], 4 + (q - 1) * 6
  local list, leases, wip, accepted = KEYS[base + 1], KEYS[base + 3], KEYS[base + 4], KEYS[base + 5]
  local clock_key = KEYS[base + 6]
  local accept, lease, work = {}, {}, {} -- entries of the sets: score, member, ...
  expect('list', list)
  expect('zset', leases, wip, accepted)
  local next_id, remove_taken = taking(list, paused, math.min(left, TAKEN_AT_ONCE))
  while flags[1 + q] == 0 and left > 0 and skips > 0 and bytes < tonumber(ARGV[8]) and size < tonumber(ARGV[11]) do
    local id = next_id()
    if not id then break end
    local key = ARGV[5] .. id
    local job = redis.pcall('HMGET', key, unpack(READ))
    if job.err or not job[1] then
      if not lose_if_accepted(id, key, accepted) and redis.call('EXISTS', key) == 1 then
        lose(id, queue, 'another tool queued it: it is no job')
      end
    elseif not string.match(id, '^[%w_%-]+$') then
      lose(id, queue, 'another tool queued it: its id is not one of ours')
      leaves(accepted, id)
    elseif job[1] == 'queued' then
      local execution = ARGV[1] .. '-' .. (#claims + 1)
      local member, record, executions = id .. ':' .. execution, ARGV[6] .. id .. ':' .. execution, ARGV[7] .. id
      redis.call('PERSIST', key)
      redis.call('HSET', key, 'status', 'started', 'started_at', now, 'last_heartbeat', now,
        'worker_name', ARGV[4], 'lease', execution)
      redis.call('HSET', record, 'id', execution, 'created_at', seconds, 'last_heartbeat', seconds,
        'worker_name', ARGV[4])
      redis.call('EXPIRE', record, 86400)
      redis.pcall('ZADD', executions, day, execution) -- `pcall`: for RQ's tools alone
      redis.call('EXPIRE', executions, 86400)
      lease[#lease + 1], lease[#lease + 2] = now_ms + tonumber(ARGV[3]), member
      work[#work + 1], work[#work + 2] = day, member
      -- jobs queued by RQ's own tools are not in it yet
      accept[#accept + 1], accept[#accept + 2] = now_ms + 86400000 - stopped_of(clock_key), id
      claims[#claims + 1] = {id, execution, queue, clock_key}
      answer(id, execution, queue, clock_key, job)
      left, skips = left - 1, skips + 1
    end
    skips = skips - 1
  end
  remove_taken()
  if #lease > 0 then
    redis.call('ZADD', leases, unpack(lease))
    redis.call('ZADD', wip, unpack(work))
    redis.call('ZADD', accepted, 'NX', unpack(accept))
  end
end
if skips == 0 or paused and paused.left == 0 then -- go on removing and moving entries
  reply[3] = 1
  hint('failover:wake', 'claim')
end
if #claims > 0 then
  redis.call('SET', KEYS[3], cjson.encode(claims), 'EX', 60)
  if redis.call('EXISTS', KEYS[4]) == 1 then redis.call('HSET', KEYS[4], 'state', 'busy') end
end
return reply
