-- Shared by every settle. Only the execution that holds the job's lease may settle the job; a resend changes nothing.

-- Take the lease from an execution. `at`: the keys {job, leases, executions, accepted}, whose types the caller has checked.
-- `state`: {the job's status, the execution that settled it}. `record`: what the history counts, '' for nothing. Returns the
-- verdict, and whether the execution held the lease: then its entry in wip and its own record are the caller's to remove.
local function take_lease(at, id, execution, state, record)
  if redis.call('ZREM', at.leases, id .. ':' .. execution) == 0 then
    return state[2] == execution and 'again' or 'fenced', false
  end
  redis.pcall('ZREM', at.executions, execution) -- `pcall`: the job's own record for RQ's tools never fails the outcome
  if state[1] ~= 'started' then -- deleted or cancelled by one of RQ's tools
    if not lose_if_accepted(id, at.job, at.accepted) then leaves(at.accepted, id) end
    return 'fenced', true
  end
  happened(record)
  return 'committed', true
end
