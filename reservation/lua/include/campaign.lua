-- What a campaign says before any claim is weighed: is it there, as the caller knows it, in its window.

-- asked: {revision, opens_at, opens_refusal, closes_at, closes_refusal, first_refusal, last_refusal};
-- heeds_status: whether a campaign that is closed or paused refuses.
-- Returns the refusal or nil, and how many wait in the campaign's queues.
local function refused_by_campaign(campaign_key, now, asked, heeds_status)
  local live = redis.call('HMGET', campaign_key, 'revision', 'status', 'waiting')
  if not live[1] then
    return 'store_unavailable'
  end
  if asked[1] ~= '0' and asked[1] ~= live[1] then
    return 'stale'
  end
  if asked[6] ~= '' then
    return asked[6]
  end
  if heeds_status and live[2] == 'closed' then
    return 'ended'
  end
  local opens_at, closes_at = tonumber(asked[2]), tonumber(asked[4])
  if closes_at > 0 and now >= closes_at then
    return asked[5]
  end
  if now < opens_at then
    return asked[3]
  end
  if heeds_status and live[2] == 'paused' then
    return 'paused'
  end
  if asked[7] ~= '' then
    return asked[7]
  end
  return nil, tonumber(live[3] or 0)
end
