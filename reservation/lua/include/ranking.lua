-- The ranking stands as it was when its campaign ended: whoever first touches it after the end copies it.
-- An end that is moved away lets it live on.

-- Whether the ranking is closed; closes it if its time has come.
local function close_ranking(campaign_key, ranking_key, final_key, now)
  local ends = redis.call('HMGET', campaign_key, 'ends_at', 'final_at')
  if now < tonumber(ends[1] or 0) then
    return false
  end
  if ends[1] ~= ends[2] then
    redis.call('DEL', final_key)
    redis.call('COPY', ranking_key, final_key)
    redis.call('HSET', campaign_key, 'final_at', ends[1])
  end
  return true
end
