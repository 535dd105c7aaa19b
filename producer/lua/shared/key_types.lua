-- Fail before the first write if a key has the wrong type (another tool wrote it): scripts do not roll back, so a script that
-- fails later leaves half of its writes. `type`: as TYPE says it. A missing key is right.
local function expect(type, ...)
  for _, key in ipairs({...}) do
    local found = redis.call('TYPE', key).ok
    if found ~= type and found ~= 'none' then
      error({err = 'WRONGTYPE ' .. key .. ' is a ' .. found .. ' and should be a ' .. type .. ': another tool wrote it'})
    end
  end
end
