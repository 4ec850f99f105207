-- What a user has in the shard, packed: campaign -> {ids, counter, n, counter, n, ...}: the digests of their
-- newest reservations, newest first, and the counters that are their own.
-- Bounded, so that one user's many reservations cannot make every further one slow; older ones are in the book.
local INDEX_IDS_MAX = 100

-- What the user has in this campaign, as this run may change it.
local function open_own(packed, campaign)
  local all = packed and cmsgpack.unpack(packed) or {}
  local mine, counts = all[campaign] or { '' }, {}
  for i = 2, #mine, 2 do
    counts[mine[i]] = mine[i + 1]
  end
  return { all = all, ids = mine[1], counts = counts }
end

local function pack_own(own, campaign)
  local mine = { own.ids }
  for counter, n in pairs(own.counts) do
    if n ~= 0 then
      mine[#mine + 1] = counter
      mine[#mine + 1] = n
    end
  end
  own.all[campaign] = mine
  return cmsgpack.pack(own.all)
end

local function remember(own, digest)
  if own.ids == '' then
    own.ids = digest
    return
  end
  local _, spaces = string.gsub(own.ids, ' ', ' ')
  if spaces + 2 > INDEX_IDS_MAX then
    own.ids = string.match(own.ids, '^(.*) [^ ]+$')
  end
  own.ids = digest .. ' ' .. own.ids
end
