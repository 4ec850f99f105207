-- The endpoint in nginx: a kept connection to Redis and one EVALSHA for every request.

local cjson = require "cjson.safe"
local redis = require "nginx.redis"

local CONNECTIONS_KEPT, KEPT_MS = 256, 60000

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

local function answer(status, body)
  body = cjson.encode(body)
  ngx.status = status
  ngx.header["Content-Type"] = "application/json"
  ngx.header["Content-Length"] = #body
  ngx.print(body)
end

-- What serves a request, by the plan in this file and the Redis on this port.
return function(plan_path, redis_port)
  local plan = assert(cjson.decode(read(plan_path)))
  local call = { #plan.keys }
  for _, key in ipairs(plan.keys) do
    call[#call + 1] = key
  end
  local first = #call + 1 -- the plan counts arguments from 0
  for _, argument in ipairs(plan.args) do
    call[#call + 1] = ngx.decode_base64(argument)
  end
  local digest_at, user_at, outcome_at = first + plan.digest_at, first + plan.user_at, plan.outcome_at + 1
  local digest_chars, sha = plan.digest_chars, nil

  return function()
    local headers = ngx.req.get_headers()
    local user = headers["X-User"]
    local digest = string.sub(ngx.md5(user .. ":" .. headers["Idempotency-Key"]), 1, digest_chars)
    ngx.req.read_body()
    local wanted = cjson.decode(ngx.req.get_body_data())

    local client = redis:new()
    local connected, failed = client:connect("127.0.0.1", redis_port)
    if not connected then
      return answer(503, { code = failed })
    end
    sha = sha or client:script("load", plan.script)
    -- One table serves all: nothing else runs between here and the end of evalsha's sending.
    call[digest_at], call[user_at] = digest, user
    local reply
    reply, failed = client:evalsha(sha, unpack(call))
    client:set_keepalive(KEPT_MS, CONNECTIONS_KEPT)
    if not reply then
      return answer(503, { code = failed })
    end
    local outcome = reply[outcome_at]
    if outcome ~= "moved" then
      return answer(409, { code = outcome })
    end
    answer(201, {
      id = plan.campaign .. "." .. digest,
      sku = wanted.sku,
      quantity = wanted.quantity,
      user = user,
      state = "held",
    })
  end
end
