-- Wakes scheduled jobs whose wait reason is gone, before their time: a page of each queue at once, the others page by page with
-- each promote (wake_more).
--
-- failover:wakes:{queue}: hash, cause (JSON: reasons, subject) -> since when (s), and how many of the jobs that are due later do
-- not wait for it, of those that were looked at
local WAKE_PAGE = 200 -- jobs: about 2 ms
local WAKES_AT_MOST = 100 -- of further causes, only the first page is woken

local function wakes_of(scheduled) return 'failover:wakes:' .. string.sub(scheduled, string.len('rq:scheduled:') + 1) end

-- Make the next page of the jobs that wait for `cause` due since the wake. Returns the new state; nil after the last page.
local function wake_page(scheduled, cause, state)
  local wanted, reasons = cjson.decode(cause), {}
  for _, reason in ipairs(wanted.reasons) do reasons[reason] = true end
  local since, passed = string.match(state, '^(%S+) (%d+)$')
  local page = redis.call('ZRANGEBYSCORE', scheduled, '(' .. since, '+inf', 'LIMIT', tonumber(passed), WAKE_PAGE)
  local woken = {}
  for _, id in ipairs(page) do
    local waits = redis.pcall('HMGET', 'rq:job:' .. id, 'waiting_reason', 'waiting_subjects')
    local subjects = ' ' .. (waits[2] or '') .. ' '
    local concerns = not wanted.subject or string.find(subjects, ' ' .. wanted.subject .. ' ', 1, true)
    if waits[1] and reasons[waits[1]] and concerns then woken[#woken + 1] = id end
  end
  for i, id in ipairs(by_acceptance(woken)) do -- a microsecond apart, because entries of one score are ordered by id
    redis.call('ZADD', scheduled, string.format('%.6f', tonumber(since) - (#woken - i) / 1000000), id)
    redis.call('HSET', 'rq:job:' .. id, 'waiting_until_ms', now_ms)
  end
  if #page == WAKE_PAGE then return since .. ' ' .. tonumber(passed) + #page - #woken end
end

local function keep(wakes, cause, state)
  if not state then
    redis.call('HDEL', wakes, cause)
  elseif redis.call('HEXISTS', wakes, cause) == 1 or redis.call('HLEN', wakes) < WAKES_AT_MOST then
    redis.call('HSET', wakes, cause, state)
    redis.call('EXPIRE', wakes, 86400)
  end
end

-- Go on with one wake of a queue.
local function wake_more(scheduled)
  local wakes = wakes_of(scheduled)
  local known = redis.call('HGETALL', wakes)
  if known[1] then keep(wakes, known[1], wake_page(scheduled, known[1], known[2])) end
end

-- Make the scheduled jobs of all queues (`queues`: the key rq:queues) due now that wait for one of `reasons`
-- (producer/waiting.py) and, if `subject` is given, of which that is one of the subjects.
local function wake_parked(queues, reasons, subject)
  local cause = cjson.encode({reasons = reasons, subject = subject})
  for _, key in ipairs(redis.call('SMEMBERS', queues)) do
    local scheduled = 'rq:scheduled:' .. string.sub(key, string.len('rq:queue:') + 1)
    keep(wakes_of(scheduled), cause, wake_page(scheduled, cause, string.format('%.6f 0', now_ms / 1000)))
  end
end
