-- The ledger's sums of each month (UTC) by scope. All amounts are whole micro-dollars.
--
-- KEYS  1 failover:reservations   2 failover:reservations:ages
-- ARGV  1 failover:spent:   2 failover:ledger:   3 failover:ambiguous:   4 failover:ladder:   5 failover:limit:
--       6 JSON: the alert thresholds, in percent
-- A row is in exactly one key: while its call runs in KEYS 1 (reserved | dispatched), afterwards in the month's ledger
-- (settled | released) or in the month's ambiguous rows; older ones are folded into sums (fold_rows.lua). Sums: spent,
-- ambiguous, held (in-flight calls at their maximum cost), tokens, held-tokens, each by scope.
local SPENT, LEDGER, AMBIGUOUS, REACHED, LIMIT = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local THRESHOLDS = cjson.decode(ARGV[6])
local FOLDED = LEDGER .. 'folded:' -- sums of the rows that have left Redis
local KEEP_SUMS, KEEP_REACHED = 400 * 86400, 45 * 86400
local COUNTED_AT_ONCE, FIELDS_AT_MOST = 300, 20000
local this_month = string.sub(iso(now_ms), 1, 7)

local function whole(number) return string.format('%.0f', number) end

-- Decode JSON that others may have overwritten; nil if it is no object.
local function read(raw)
  local done, found = pcall(cjson.decode, raw)
  return done and type(found) == 'table' and found or nil
end

-- As `Owner.scopes` (worker/money/caps.py). A call that the tenant's own key pays does not count for our total and providers.
local function scopes_of(row)
  local scopes = {'tenant:' .. row.tenant}
  if row.own ~= '1' then scopes = {'total', 'provider:' .. row.provider, scopes[1]} end
  if row.user ~= '' then scopes[#scopes + 1] = 'user:' .. string.gsub(row.tenant, '/', '%%2F') .. '/' .. row.user end
  if row.feature ~= '' then scopes[#scopes + 1] = 'feature:' .. row.feature end
  return scopes
end

local function is_row(row)
  return row and row.tenant and row.provider and row.user and row.feature and tonumber(row.micros) and tonumber(row.tokens)
end

-- Pass what a row adds to the sums of its kind to `add`, as (kind, scope, amount).
local function weigh(row, kind, add)
  for _, scope in ipairs(scopes_of(row)) do
    add(kind, scope, row.micros)
    add(kind == 'held' and 'held-tokens' or 'tokens', scope, row.tokens)
  end
end

-- Pages of closed rows, the oldest first: {stream id, row}. `to`: the last id.
local function page_of(month, from, to, at_most)
  local page = redis.call('XRANGE', LEDGER .. month, from, to, 'COUNT', at_most)
  for i, entry in ipairs(page) do
    local row = {}
    for j = 1, #entry[2], 2 do row[entry[2][j]] = entry[2][j + 1] end
    row.tokens = (tonumber(row.prompt) or 0) + (tonumber(row.completion) or 0)
    page[i] = {entry[1], row}
  end
  return page
end

-- A command with many words, several times: Lua passes a few thousand arguments at most.
local function in_parts(command, key, words)
  for first = 1, #words, 1000 do redis.call(command, key, unpack(words, first, math.min(#words, first + 999))) end
end

-- The values of fields of a hash, in their order; false for one that is not there.
local function values_of(key, fields)
  local found = {}
  for first = 1, #fields, 1000 do -- Lua passes a few thousand arguments at most
    local some = redis.call('HMGET', key, unpack(fields, first, math.min(#fields, first + 999)))
    for i, value in ipairs(some) do found[first + i - 1] = value end
  end
  return found
end

-- The rows of calls that run (KEYS 1, 2), as this script leaves them: id -> JSON, false for none. They are read many at once,
-- and what changes is written at the script's end, by `write_moved`.
local running, changed = {}, {}
local function read_running(ids)
  for i, raw in ipairs(values_of(KEYS[1], ids)) do running[ids[i]] = raw end
end

local function running_row(id)
  if running[id] == nil then running[id] = redis.call('HGET', KEYS[1], id) end
  return running[id]
end

local function set_running(id, raw)
  running[id], changed[id] = raw, true
end

local function write_running()
  local set, at, gone = {}, {}, {}
  for id in pairs(changed) do
    if running[id] then
      set[#set + 1], set[#set + 2] = id, running[id]
      at[#at + 1], at[#at + 2] = now_ms, id
    else
      gone[#gone + 1] = id
    end
  end
  in_parts('HSET', KEYS[1], set)
  in_parts('ZADD', KEYS[2], at)
  in_parts('HDEL', KEYS[1], gone)
  in_parts('ZREM', KEYS[2], gone)
  changed = {}
end

-- The kind of a name that comes from outside, without a limit to their number; nil for other scopes.
local function free_kind(scope) return string.match(scope, '^(user):') or string.match(scope, '^(feature):') end

-- Sums that this script has changed, as they are now: key -> field -> sum. They are written at its end, by `write_moved`: the
-- same few sums change with every row, and one write takes a fraction of an HINCRBY for each.
local moved = {}

-- The scope under which a sum of `key` is kept. Beyond FIELDS_AT_MOST fields, new names without a cap are counted together, as
-- rest:user and rest:feature.
local room = {} -- fields that a hash may still get, at least
local function kept_scope(key, kind, scope, is_capped)
  local free, field = free_kind(scope), kind .. ':' .. scope
  if not free or is_capped then return scope end
  if moved[key] and moved[key][field] then return scope, 'rest:' .. free end
  if not room[key] then room[key] = FIELDS_AT_MOST - redis.call('HLEN', key) end
  if room[key] > 0 then
    room[key] = room[key] - 1
    return scope, 'rest:' .. free
  end
  if redis.call('HEXISTS', key, field) == 1 then return scope, 'rest:' .. free end
  return 'rest:' .. free
end

-- A hash of sums, changed by the collected amounts: read and written many at once, which takes a fraction of one HINCRBY each.
local function adding(key)
  local amounts, names = {}, {}
  local function add(kind, scope, amount)
    local name = kind .. ':' .. scope
    if not amounts[name] then names[#names + 1] = name end
    amounts[name] = (amounts[name] or 0) + (tonumber(amount) or 0)
  end
  local function write()
    local pairs_of = {}
    for i, before in ipairs(values_of(key, names)) do
      local sum = tonumber(before or '0') + amounts[names[i]]
      if sum == 0 and before then redis.call('HDEL', key, names[i]) end
      if sum ~= 0 then pairs_of[#pairs_of + 1], pairs_of[#pairs_of + 2] = names[i], whole(sum) end
    end
    in_parts('HSET', key, pairs_of)
  end
  return add, write
end

-- Lost sums are counted again under `part_of`. Ambiguous and open rows may end meanwhile: they are counted from a copy of their
-- hash, which a row leaves once it is counted, and `move` heeds those that change. A month's closed rows only grow in number.
local function part_of(month) return SPENT .. month .. ':recount' end
local function uncounted(month, kind) return part_of(month) .. ':' .. kind end

local function begin_count(month)
  write_running()
  redis.call('DEL', part_of(month), uncounted(month, 'ambiguous'), uncounted(month, 'held'))
  redis.call('COPY', FOLDED .. month, part_of(month))
  redis.call('COPY', AMBIGUOUS .. month, uncounted(month, 'ambiguous'))
  redis.call('COPY', KEYS[1], uncounted(month, 'held'))
  return '-'
end

-- Take at most `at_most` rows out of a copy and pass what they add. Returns how many were taken.
local function count_copied(month, kind, at_most, add)
  local found, ids = redis.call('HRANDFIELD', uncounted(month, kind), at_most, 'WITHVALUES'), {}
  for i = 1, #found, 2 do
    local row = read(found[i + 1])
    if is_row(row) and row.month == month then weigh(row, kind, add) end
    ids[#ids + 1] = found[i]
  end
  in_parts('HDEL', uncounted(month, kind), ids)
  return #ids
end

-- Amounts that are collected by scope, and their write into the part.
local function collecting(month)
  local part, amounts, free = part_of(month), {}, {} -- amounts: scope -> kind -> amount
  local function add(kind, scope, amount)
    local of = amounts[scope]
    if not of then
      of = {}
      amounts[scope] = of
      if free_kind(scope) then free[#free + 1] = 'terms:' .. scope end
    end
    of[kind] = (of[kind] or 0) + (tonumber(amount) or 0)
  end
  local function write()
    local is_capped, sum, write_sums = {}, adding(part)
    for i, terms in ipairs(values_of(FOLDED .. month, free)) do is_capped[free[i]] = terms end
    for scope, of in pairs(amounts) do
      local capped = is_capped['terms:' .. scope]
      for kind, amount in pairs(of) do sum(kind, kept_scope(part, kind, scope, capped), amount) end
    end
    write_sums()
  end
  return add, write
end

-- One step of counting lost sums again: what was folded, then at most `at_most` rows. Returns whether the sums are there.
local function count_step(month, at_most)
  local part, left = part_of(month), at_most
  local from = redis.call('HGET', part, 'from') or begin_count(month)
  local add, write = collecting(month)
  left = left - count_copied(month, 'ambiguous', left, add)
  left = left - count_copied(month, 'held', left, add)
  local page = left > 0 and page_of(month, from, '+', left) or {}
  for _, entry in ipairs(page) do weigh(entry[2], 'spent', add) end
  write()
  if #page < left then
    redis.call('HDEL', part, 'from')
    redis.call('HSET', part, 'since', now_ms)
    redis.call('RENAME', part, SPENT .. month)
    redis.call('EXPIRE', SPENT .. month, KEEP_SUMS)
    return true
  end
  redis.call('HSET', part, 'from', #page > 0 and '(' .. page[#page][1] or from)
  for _, key in ipairs({part, uncounted(month, 'ambiguous'), uncounted(month, 'held')}) do redis.call('EXPIRE', key, 3600) end
  return false
end

-- The key of the month's sums; nil while lost sums are counted again. They are never taken as zero. A script does one step at
-- most, before it changes a row: so a row is counted either by the step or by `move`.
local there = {}
local function sums_of(month, at_most)
  if there[month] == nil then
    there[month] = redis.call('HEXISTS', SPENT .. month, 'since') == 1 or count_step(month, at_most or COUNTED_AT_ONCE)
  end
  return there[month] and SPENT .. month or nil
end

-- The sums of fields as they are now, in their order. An unreadable sum raises: it must not count as zero.
local function sums_now(key, fields)
  local now, found = moved[key] or {}, values_of(key, fields)
  for i, field in ipairs(fields) do
    found[i] = now[field] or tonumber(found[i] or '0') or error('the sum ' .. field .. ' is no number')
  end
  return found
end

-- The sums that a row changes: {field, field of the rest or nil, whether it counts tokens}. Many rows of a script are alike.
local alike = {}
local function changed_by(key, row, kind)
  local like = not (row.caps and next(row.caps)) and table.concat({row.month, kind, row.tenant, row.provider, row.user,
    row.feature, row.own or ''}, '\0')
  if like and alike[like] then return alike[like] end
  local found = {}
  for _, scope in ipairs(scopes_of(row)) do
    for _, of in ipairs({kind, kind == 'held' and 'held-tokens' or 'tokens'}) do
      local kept, rest = kept_scope(key, of, scope, row.caps and row.caps[scope])
      found[#found + 1] = {of .. ':' .. kept, rest and of .. ':' .. rest, of ~= kind}
    end
  end
  if like then alike[like] = found end
  return found
end

-- Change the sums by a row. A sum of a name that was counted with the rest before never becomes negative: the rest takes it.
local function move(row, kind, sign)
  local key = sums_of(row.month)
  if not key then
    -- the count that goes on will find a closed row, and one that was not counted yet
    if kind == 'spent' or (sign < 0 and redis.call('HDEL', uncounted(row.month, kind), row.id) == 1) then return end
    key = part_of(row.month)
  end
  local now = moved[key] or {}
  moved[key] = now
  for _, change in ipairs(changed_by(key, row, kind)) do
    local field, rest, amount = change[1], change[2], change[3] and row.tokens or row.micros
    if amount ~= 0 then
      local sum = (now[field] or sums_now(key, {field})[1]) + sign * amount
      if sum < 0 and rest then
        now[rest] = (now[rest] or sums_now(key, {rest})[1]) + sum
        sum = 0
      end
      now[field] = sum
    end
  end
end

-- Every script that moves rows ends with it.
local function write_moved()
  write_running()
  for key, sums in pairs(moved) do
    local set, gone = {}, {}
    for field, sum in pairs(sums) do
      if sum == 0 then gone[#gone + 1] = field else set[#set + 1], set[#set + 2] = field, whole(sum) end
    end
    in_parts('HSET', key, set)
    in_parts('HDEL', key, gone)
  end
  moved = {}
end

-- Set the time to live of a key, once in this script.
local keeps = {}
local function keep(key, seconds)
  if not keeps[key] then redis.call('EXPIRE', key, seconds) end
  keeps[key] = true
end

