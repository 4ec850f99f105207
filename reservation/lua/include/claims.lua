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
-- Claims whose refusal begins with ? are optional: those of one such name are taken together, or left out.
-- queued: the counter that others stand in line for, of which no more may be taken; or nil.
-- ranking_key: where counters whose name begins with # are kept; nil where none is wanted.
-- Returns the refusal of the first claim that does not hold, or nil, the steps to take, and the claims taken.
local function weigh_claims(held, wanted, user, used_key, caps_key, queued, ranking_key)
  local before, steps, taken, left_out = {}, {}, {}, nil
  for i = 1, #held, 2 do
    before[held[i]] = held[i + 1]
  end
  for _, claim in ipairs(wanted) do
    local name, n, cap, refusal = claim[1], claim[2], claim[3], claim[4]
    local step, counter = n - (before[name] or 0), counter_of(name, user)
    if step > 0 then
      if cap == '' then
        cap = redis.call('HGET', caps_key, counter) or 0
      end
      local used
      if ranking_key and string.sub(name, 1, 1) == '#' then
        used = redis.call('ZSCORE', ranking_key, user) or 0
      else
        used = redis.call('HGET', used_key, counter) or 0
      end
      if name == queued or used + step > tonumber(cap) then
        if string.sub(refusal, 1, 1) ~= '?' then
          return refusal
        end
        left_out = left_out or {}
        left_out[refusal] = true
      end
    end
    if step ~= 0 then
      steps[#steps + 1] = { counter, step }
    end
    before[name] = nil
    taken[#taken + 1] = name
    taken[#taken + 1] = n
  end
  if left_out then
    local rest = {}
    for _, claim in ipairs(wanted) do
      if not left_out[claim[4]] then
        rest[#rest + 1] = claim
      end
    end
    return weigh_claims(held, rest, user, used_key, caps_key, queued, ranking_key)
  end
  for name, n in pairs(before) do
    steps[#steps + 1] = { counter_of(name, user), -n }
  end
  return nil, steps, taken
end
