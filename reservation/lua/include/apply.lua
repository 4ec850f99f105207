-- A counter that comes back to nothing is forgotten, so that a quota costs memory only while used.
-- A counter whose name begins with # is kept sorted by user, in the campaign's ranking.
local function apply_claims(steps, used_key, campaign_key, ranking_key, final_key, now)
  for _, step in ipairs(steps) do
    if string.sub(step[1], 1, 1) == '#' then
      close_ranking(campaign_key, ranking_key, final_key, now)
      local user = string.match(step[1], '@(.*)$')
      if tonumber(redis.call('ZINCRBY', ranking_key, step[2], user)) == 0 then
        redis.call('ZREM', ranking_key, user)
      end
    elseif redis.call('HINCRBY', used_key, step[1], step[2]) == 0 then
      redis.call('HDEL', used_key, step[1])
    end
  end
end
