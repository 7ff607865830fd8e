-- Sends the requests that it is given in random order, and prints how many were answered and how many of those badly.
local mixed = {}

function init(args)
  math.randomseed(7)
  for _, arg in ipairs(args) do
    local method, path, size = arg:match("^(%u+) (%S+) ?(%d*)$")
    local body = size ~= "" and string.rep("s", tonumber(size)) or nil
    table.insert(mixed, wrk.format(method, path, {}, body))
  end
end

function request()
  return mixed[math.random(#mixed)]
end

function done(summary, latency, requests)
  local e = summary.errors
  print(string.format("counted %d %d", summary.requests, e.connect + e.read + e.write + e.status + e.timeout))
  print(string.format("connect %d read %d write %d status %d timeout %d", e.connect, e.read, e.write, e.status, e.timeout))
end
