-- Claims against capped counters: used + n <= cap.
-- A counter whose name ends in @ is each user's own; one that begins with # is ranked by user as well.

-- The campaign's shared counters as this run sees them, and what it adds to them.
local shared, caps, added = {}, {}, {}

local function used_of(name, user, own, used_key, ranking_key)
  if string.sub(name, -1) ~= '@' then
    if not shared[name] then
      shared[name] = tonumber(redis.call('HGET', used_key, name) or 0)
    end
    return shared[name]
  end
  if string.sub(name, 1, 1) == '#' then
    return tonumber(redis.call('ZSCORE', ranking_key, user) or 0)
  end
  return own.counts[name] or 0
end

-- The cap that the store keeps.
local function cap_of(name, user, caps_key)
  local counter = string.sub(name, -1) == '@' and name .. user or name
  if not caps[counter] then
    caps[counter] = tonumber(redis.call('HGET', caps_key, counter) or 0)
  end
  return caps[counter]
end

-- Weigh what `wanted` asks beyond what `held` has already taken. Writes nothing.
-- held: {counter, n, counter, n, ...}; wanted: {{counter, n, cap, refusal}, ...}, a cap nil is the store's.
-- Claims whose refusal begins with ? are optional: those of one such name are taken together, or left out.
-- queued: the counter that others stand in line for, of which no more may be taken; or nil.
-- Returns the refusal of the first claim that does not hold, or nil, the steps to take, and the claims taken.
local function weigh_claims(held, wanted, user, own, queued, used_key, caps_key, ranking_key)
  local before, steps, taken, left_out = {}, {}, {}, nil
  for i = 1, #held, 2 do
    before[held[i]] = held[i + 1]
  end
  for _, claim in ipairs(wanted) do
    local name, n, cap, refusal = claim[1], claim[2], claim[3], claim[4]
    local step = n - (before[name] or 0)
    if step > 0 then
      cap = cap or cap_of(name, user, caps_key)
      if name == queued or used_of(name, user, own, used_key, ranking_key) + step > cap then
        if string.sub(refusal, 1, 1) ~= '?' then
          return refusal
        end
        left_out = left_out or {}
        left_out[refusal] = true
      end
    end
    if step ~= 0 then
      steps[#steps + 1] = { name, step }
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
    return weigh_claims(held, rest, user, own, queued, used_key, caps_key, ranking_key)
  end
  for name, n in pairs(before) do
    steps[#steps + 1] = { name, -n }
  end
  return nil, steps, taken
end

-- Take the steps, as far as this run sees; those on ranked counters are left to the ranking.
local function take_steps(steps, user, own, used_key)
  for _, step in ipairs(steps) do
    local name, n = step[1], step[2]
    if string.sub(name, -1) ~= '@' then
      shared[name] = used_of(name, user, own, used_key) + n
      added[name] = (added[name] or 0) + n
    elseif string.sub(name, 1, 1) ~= '#' then
      own.counts[name] = (own.counts[name] or 0) + n
    end
  end
end

-- Write the shared counters. One that comes back to nothing is forgotten.
local function write_shared(used_key)
  for name, n in pairs(added) do
    if n ~= 0 and redis.call('HINCRBY', used_key, name, n) == 0 then
      redis.call('HDEL', used_key, name)
    end
  end
end

-- The claims in ARGV from `at` on, four each: counter n cap refusal. An empty cap is the one kept in the store.
local function read_claims(at, last)
  local wanted = {}
  for i = at, last, 4 do
    wanted[#wanted + 1] = { ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3] }
  end
  return wanted
end
