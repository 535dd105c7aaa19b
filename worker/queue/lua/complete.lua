-- prelude: clock key_types hint leaves lost happened fence ends event count
-- flags: allow-oom
-- Outcome Done, of jobs of one queue: store their results.
--
-- KEYS  1 failover:leases:{queue}   2 rq:wip:{queue}   3 failover:accepted:{queue}   4 rq:finished:{queue}
--       5 rq:worker:{name}   6 failover:news:{queue}   then for each job: rq:job:{id}   rq:execution:{id}:{execution}
--       rq:executions:{id}   rq:results:{id}
-- ARGV  1 RQ's data in place of the prompts   then for each job: id   execution id   result (base64 of JSON)   the rest of the
--       result (compressed)   keep (s)   run time (ms)   '1' if not the first route answered   '1' if the answer was degraded,
--       but not to save cost   what the history counts, '' for nothing
-- Returns for each job 'committed' | 'again' (a resend) | 'fenced' (this execution no longer holds the lease) | an error
-- Invariant: a job has at most one result. A job that cannot be written does not hold up the others.
local LEASES, WIP, ACCEPTED, FINISHED, WORKER, NEWS = unpack(KEYS, 1, 6)
local KEYS_EACH, ARGS_EACH = 4, 9
local ended_at, now = iso(now_ms), math.floor(now_ms / 1000)
local leases, records = {}, {} -- that are over
local ended, kept = {}, {} -- ids, and until when RQ's registry keeps them
local run_ms, saved, degraded = 0, 0, 0

local function complete(job, record, executions, results, id, execution, result, rest, keep, ran, is_saved, is_degraded, counted)
  local state = state_of(job) -- before the first write: it fails if the job is no hash
  local at = {job = job, leases = LEASES, executions = executions, accepted = ACCEPTED}
  local verdict, held = take_lease(at, id, execution, {state.status, state.settled}, counted)
  if held then
    leases[#leases + 1], records[#records + 1] = id .. ':' .. execution, record
  end
  if verdict ~= 'committed' then return verdict end

  only_stream(results)
  redis.call('XADD', results, '*', 'type', 1, 'return_value', result, 'more', rest)
  fit(results)
  done(job, results, keep, state, 'status', 'finished', 'data', ARGV[1], 'ended_at', ended_at, 'settled', execution)
  ended[#ended + 1] = id
  kept[#kept + 1], kept[#kept + 2] = now + tonumber(keep), id
  run_ms = run_ms + tonumber(ran)
  if is_saved == '1' then saved = saved + 1 end
  if is_degraded == '1' then
    degraded = degraded + 1
    count(NEWS, 'degraded:tenant:' .. (state.tenant or '?'), 1)
  end
  event('job.done', id, state.tenant)
  return verdict
end

expect('zset', WIP, ACCEPTED, ACCEPTED .. ':promised', FINISHED)
local verdicts = {}
for i = 1, (#KEYS - 6) / KEYS_EACH do
  local key, arg = 6 + (i - 1) * KEYS_EACH, 1 + (i - 1) * ARGS_EACH
  local words = {unpack(KEYS, key + 1, key + KEYS_EACH)}
  for j = 1, ARGS_EACH do words[KEYS_EACH + j] = ARGV[arg + j] end
  local finished, answer = pcall(complete, unpack(words))
  verdicts[i] = finished and answer or {err = type(answer) == 'table' and answer.err or tostring(answer)}
end
if #leases > 0 then
  redis.call('ZREM', WIP, unpack(leases))
  redis.call('DEL', unpack(records))
end
if #ended > 0 then
  redis.call('ZADD', FINISHED, unpack(kept))
  leaves(ACCEPTED, unpack(ended))
  if redis.call('EXISTS', WORKER) == 1 then
    redis.pcall('HINCRBY', WORKER, 'successful_job_count', #ended)
    redis.pcall('HINCRBYFLOAT', WORKER, 'total_working_time', run_ms / 1000)
  end
end
if saved > 0 then count(NEWS, 'saved', saved) end
if degraded > 0 then count(NEWS, 'degraded', degraded) end
return verdicts
