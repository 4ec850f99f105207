-- The newest reservations of a user are found through the index. It is bounded, so that one
-- user's many reservations cannot make every further one slow; older ones are in the book.
local INDEX_IDS_MAX = 100

local function remember(index, user, reservation_id)
  local ids = redis.call('HGET', index, user)
  if not ids then
    redis.call('HSET', index, user, reservation_id)
    return
  end
  local _, count = string.gsub(ids, ' ', ' ')
  if count + 1 >= INDEX_IDS_MAX then
    ids = string.match(ids, '^(.*) [^ ]+$')
  end
  redis.call('HSET', index, user, reservation_id .. ' ' .. ids)
end
