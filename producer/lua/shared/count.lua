-- Counts for messages to people, written by the script that changes the job. A worker folds them into an incident. Neither the
-- counts nor the incident keep more than NEWS_FIELDS fields, however many tenants there are. A count that cannot be written
-- (`pcall`) never fails the outcome.
local NEWS_FIELDS = 2000
local function count(key, field, more)
  local prefix = string.match(field, '^(%a+:%a+:)')
  if prefix and redis.pcall('HEXISTS', key, field) == 0 and redis.call('HLEN', key) >= NEWS_FIELDS then
    field = prefix .. '(others)'
  end
  redis.pcall('HINCRBY', key, field, more)
end
