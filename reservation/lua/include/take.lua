-- Take the steps that were weighed: of shared counters, of the user's own, of the ranking.
-- Goes by: campaign user own steps used_key users_key ranking_key.

take_steps(steps, user, own, used_key)
write_shared(used_key)
redis.call('HSET', users_key, user, pack_own(own, campaign))
for _, step in ipairs(steps) do
  if string.sub(step[1], 1, 1) == '#' and tonumber(redis.call('ZINCRBY', ranking_key, step[2], user)) == 0 then
    redis.call('ZREM', ranking_key, user)
  end
end
