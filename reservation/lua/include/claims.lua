-- Claims against capped counters: used + n <= cap.

-- A counter whose name ends in @ is counted for each user on their own.
local function counter_of(name, user)
  if string.sub(name, -1) == '@' then
    return name .. user
  end
  return name
end

-- Weigh what `wanted` asks beyond what `held` has already taken. Writes nothing.
-- held: {counter, n, counter, n, ...}; wanted: {{counter, n, cap, refusal}, ...}.
-- Returns the refusal of the first claim that does not hold, or nil and the steps to take.
local function weigh_claims(held, wanted, user, used_key, caps_key)
  local before, steps = {}, {}
  for i = 1, #held, 2 do
    before[held[i]] = held[i + 1]
  end
  for _, claim in ipairs(wanted) do
    local name, n, cap, refusal = claim[1], claim[2], claim[3], claim[4]
    local step = n - (before[name] or 0)
    before[name] = nil
    local counter = counter_of(name, user)
    if step > 0 then
      if cap == '' then
        cap = redis.call('HGET', caps_key, counter) or 0
      end
      local used = redis.call('HGET', used_key, counter) or 0
      if used + step > tonumber(cap) then
        return refusal, nil
      end
    end
    if step ~= 0 then
      steps[#steps + 1] = { counter, step }
    end
  end
  for name, n in pairs(before) do
    steps[#steps + 1] = { counter_of(name, user), -n }
  end
  return nil, steps
end

-- A counter that comes back to nothing is forgotten, so that a quota costs memory only while used.
local function apply_claims(steps, used_key)
  for _, step in ipairs(steps) do
    if redis.call('HINCRBY', used_key, step[1], step[2]) == 0 then
      redis.call('HDEL', used_key, step[1])
    end
  end
end
