-- prelude: clock ledger_sums ledger_rows
-- flags: allow-oom
-- Apply one worker's writes to the ledger, in order: reservations, dispatched calls, ended calls.
--
-- KEYS  1-2 as in ledger_sums   3 failover:booked:{worker}   4 failover:budgets
-- ARGV  1-6 as in ledger_sums   7 number of this batch   8 JSON: {step, ...}, a step being
--       {'reserve', row, {limit, ...}}   row.caps: scope -> {hard, basis, tokens}, a limit as in wait_ms
--       {'dispatch', id}   {'close', id, month, state, micros, prompt tokens, completion tokens}
--       {'book', row, state, micros, prompt tokens, completion tokens}: writes a call whose reservation is not in Redis
-- Returns JSON: for each step {'granted', month} | {'refused' | 'busy', scope, micro-dollars left} | {'limited', limit, ms,
--         whether its tokens are too many} | {'dispatched'} | {'closed'} | {'gone'} | {'broken', why}. Busy: the remainder is
--         reserved by calls that run, and some of it will be free again.
-- Invariant: a batch counts once, even when it is resent. At each grant, spent + ambiguous + held is within every hard cap.
--            A refused reservation changes nothing except the alert thresholds.
local before = redis.call('GET', KEYS[3])
if before then
  local number, reply = string.match(before, '^(%d+) (.*)$')
  if number == ARGV[7] then return reply end
end

-- Whether an operator has set another cap than the worker knows. The worker will read it within a second.
local function outdated(scope, cap)
  local raw = redis.call('HGET', KEYS[4], scope)
  local terms = raw and (read(raw) or {}).terms
  return terms and (terms[1] ~= cap[1] or terms[3] ~= cap[3])
end

-- The scope whose cap refuses the row, whether for good (even without the calls that run it would be refused), and the
-- micro-dollars that are not spent.
local function over(row)
  for scope, cap in pairs(row.caps) do
    if not sums_of(row.month) then return scope, false, 0 end -- they are being counted again
    local spent, ambiguous, held, tokens, held_tokens = sums_of_scope(row.month, scope)
    spent = spent + ambiguous
    if (cap[1] >= 0 and spent + held + row.micros > cap[1])
      or (cap[3] >= 0 and tokens + held_tokens + row.tokens > cap[3]) then
      local for_good = (cap[1] >= 0 and spent + row.micros > cap[1]) or (cap[3] >= 0 and tokens + row.tokens > cap[3])
      local left = cap[1] >= 0 and math.max(0, cap[1] - spent) or 0
      if outdated(scope, cap) then return scope, false, left end
      -- a job larger than the whole cap does not make it full; at a cap of 0, which stops the scope, every job is larger
      local too_large = (cap[1] > 0 and row.micros > cap[1]) or (cap[3] >= 0 and row.tokens > cap[3])
      if for_good and not too_large then note_threshold(row.month, scope, cap, {row.micros, row.tokens}) end
      return scope, for_good, left
    end
  end
end

local steps = {}
function steps.reserve(row, limits)
  if running_row(row.id) then return {'granted', this_month} end
  row.month, row.at, row.limits = this_month, now_ms, {}
  for scope, cap in pairs(row.caps) do in_force(row.month, scope, cap, true) end
  local scope, for_good, left = over(row)
  if scope then return {for_good and 'refused' or 'busy', scope, left} end
  for _, limit in ipairs(limits) do
    local wait, for_tokens = wait_ms(limit, row.tokens)
    if wait > 0 then return {'limited', limit[1], wait, for_tokens} end
  end
  sums_of(row.month)
  for i, limit in ipairs(limits) do row.limits[i] = {limit[1], occupy(limit, row.tokens, row.id)} end
  set_running(row.id, cjson.encode(row))
  move(row, 'held', 1)
  for capped, cap in pairs(row.caps) do note_threshold(row.month, capped, cap, nil) end
  return {'granted', this_month}
end

function steps.dispatch(id)
  local raw = running_row(id)
  if not raw then return {'gone'} end
  local row = cjson.decode(raw)
  row.state = 'dispatched'
  set_running(id, cjson.encode(row))
  return {'dispatched'}
end

function steps.close(id, month, state, micros, prompt, completion)
  local raw = running_row(id)
  if raw then
    close(cjson.decode(raw), state, micros, prompt, completion)
    return {'closed'}
  end
  raw = redis.call('HGET', AMBIGUOUS .. month, id) -- a sweep took this worker for gone
  if not raw then return {'gone'} end
  if state == 'ambiguous' then return {'closed'} end
  local row = cjson.decode(raw)
  sums_of(row.month)
  redis.call('HDEL', AMBIGUOUS .. month, id)
  move(row, 'ambiguous', -1)
  file(row, state, micros, prompt, completion)
  return {'closed'}
end

function steps.book(row, state, micros, prompt, completion)
  row.month, row.at, row.limits = this_month, now_ms, {}
  sums_of(row.month)
  file(row, state, micros, prompt, completion)
  return {'closed'}
end

local asked, ids, replies = cjson.decode(ARGV[8]), {}, {}
for i, step in ipairs(asked) do ids[i] = type(step[2]) == 'table' and step[2].id or step[2] end
read_running(ids)
for i, step in ipairs(asked) do
  local done, answer = pcall(steps[table.remove(step, 1)], unpack(step))
  replies[i] = done and answer or {'broken', type(answer) == 'table' and answer.err or tostring(answer)}
end
write_moved()
local reply = cjson.encode(replies)
redis.call('SET', KEYS[3], ARGV[7] .. ' ' .. reply, 'EX', 3600)
return reply
