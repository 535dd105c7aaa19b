-- Wakes scheduled jobs whose wait reason is gone, before their time.
local WAKE_AT_MOST = 5000 -- jobs per queue; the others wait until their time

-- Make every scheduled job of all queues (`queues`: the key rq:queues) due now, if it waits for one of `reasons`
-- (producer/waiting.py) and, if `subject` is given, if that is one of its subjects.
local function wake_parked(queues, reasons, subject)
  local wanted = {}
  for _, reason in ipairs(reasons) do wanted[reason] = true end
  for _, key in ipairs(redis.call('SMEMBERS', queues)) do
    local scheduled, woken = 'rq:scheduled:' .. string.sub(key, string.len('rq:queue:') + 1), {}
    for _, id in ipairs(redis.call('ZRANGE', scheduled, 0, WAKE_AT_MOST - 1)) do
      local waits = redis.pcall('HMGET', 'rq:job:' .. id, 'waiting_reason', 'waiting_subjects')
      local subjects = ' ' .. (waits[2] or '') .. ' '
      if waits[1] and wanted[waits[1]] and (not subject or string.find(subjects, ' ' .. subject .. ' ', 1, true)) then
        woken[#woken + 1] = id
      end
    end
    for i, id in ipairs(by_acceptance(woken)) do -- a microsecond apart, because entries of one score are ordered by id
      redis.call('ZADD', scheduled, string.format('%.6f', now_ms / 1000 - (#woken - i) / 1000000), id)
      redis.call('HSET', 'rq:job:' .. id, 'waiting_until_ms', now_ms)
    end
  end
end
