-- What a campaign says before any claim is weighed: is it there, as the caller knows it, in its window.

-- ARGV from `at` on: revision opens_at opens_refusal closes_at closes_refusal first_refusal last_refusal;
-- fence_key: whether the shard takes nothing; heeds_status: whether a campaign that is closed or paused refuses.
-- Returns the refusal or nil, how many wait in the campaign's queues, and whether changes leave a trail.
local function refused_by_campaign(campaign_key, fence_key, now, at, heeds_status)
  local live = redis.call('HMGET', campaign_key, 'revision', 'status', 'waiting', 'trail_until')
  if not live[1] or redis.call('EXISTS', fence_key) == 1 then
    return 'store_unavailable'
  end
  if ARGV[at] ~= '0' and ARGV[at] ~= live[1] then
    return 'stale'
  end
  if ARGV[at + 5] ~= '' then
    return ARGV[at + 5]
  end
  if heeds_status and live[2] == 'closed' then
    return 'ended'
  end
  local opens_at, closes_at = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 3])
  if closes_at > 0 and now >= closes_at then
    return ARGV[at + 4]
  end
  if now < opens_at then
    return ARGV[at + 2]
  end
  if heeds_status and live[2] == 'paused' then
    return 'paused'
  end
  if ARGV[at + 6] ~= '' then
    return ARGV[at + 6]
  end
  return nil, tonumber(live[3] or 0), now < tonumber(live[4] or 0)
end
