-- Reservations for wrk: each user in turn, each with a key that was never used.
--
--     wrk -s wrk.lua URL -- USERS PREFIX BODY PATH

local users, tail, count = {}, "", 0
local worker -- the one thread, as the script sees it from outside
statuses = {} -- global, since only those can be read from outside

function init(args)
  local prefix, body, path = args[2], args[3], args[4]
  for line in io.lines(args[1]) do
    local user, token = string.match(line, "(%S+) (%S+)")
    -- What each of a user's requests begins with, up to the key's number.
    users[#users + 1] = table.concat({
      "POST " .. path .. " HTTP/1.1",
      "Host: " .. wrk.headers["Host"],
      "Authorization: Bearer " .. token,
      "X-User: " .. user,
      "Content-Type: application/json",
      "Content-Length: " .. #body,
      "Idempotency-Key: " .. prefix .. "-",
    }, "\r\n")
  end
  tail = "\r\n\r\n" .. body
end

function request()
  local user = users[count % #users + 1]
  count = count + 1
  return user .. count .. tail
end

-- Costs wrk about as little as its own counting: answers have few headers.
function response(status)
  statuses[status] = (statuses[status] or 0) + 1
end

function setup(thread)
  worker = thread
end

function done(summary)
  local counts = {}
  for status, count in pairs(worker:get("statuses")) do
    counts[#counts + 1] = string.format('"%d": %d', status, count)
  end
  local errors = summary.errors
  io.write(string.format(
    'counted {"duration_us": %d, "statuses": {%s}, "broken": %d, "late": %d}\n',
    summary.duration,
    table.concat(counts, ", "),
    errors.connect + errors.read + errors.write,
    errors.timeout
  ))
end
