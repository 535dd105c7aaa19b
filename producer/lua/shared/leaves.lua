-- A job that has ended, or is gone, stands in neither set: accepted, and the same jobs by the time promised (ms).
local function leaves(accepted, id)
  redis.call('ZREM', accepted, id)
  redis.call('ZREM', accepted .. ':promised', id)
end

