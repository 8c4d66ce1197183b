-- Functions that every script of this folder may call; they come before the text of each script.
-- KEYS[1] of a script that calls state() is the hash with the log's id, generation and position.

-- State of the log: run id of the server, id of the log, its generation, its last position.
local function state()
  -- the run id tells a restarted server from the one before, which may have had more events
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local fields = redis.call('HMGET', KEYS[1], 'id', 'generation', 'last')
  return {run, fields[1] or '', fields[2] or '0', fields[3] or '0-0'}
end

-- Whether position a is after position b; a position is milliseconds-number.
local function after(a, b)
  local a1, a2 = string.match(a, '(%d+)-(%d+)')
  local b1, b2 = string.match(b, '(%d+)-(%d+)')
  -- as numbers, because as texts '10-0' would be before '9-0'
  a1, a2, b1, b2 = tonumber(a1), tonumber(a2), tonumber(b1), tonumber(b2)
  return a1 > b1 or (a1 == b1 and a2 > b2)
end

-- Table of a flat list of names and values.
local function named(flat)
  local values = {}
  for i = 1, #flat, 2 do values[flat[i]] = flat[i + 1] end
  return values
end

-- Groups of a stream, each as a table.
local function groups(stream)
  local tables = {}
  -- XINFO raises an error for a stream that does not exist, as before the first event
  if redis.call('EXISTS', stream) == 1 then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      tables[#tables + 1] = named(group)
    end
  end
  return tables
end

-- Number of events that a group has not committed.
local function behind(stream, group)
  local from = '(' .. group['last-delivered-id']
  local fresh = #redis.call('XRANGE', stream, from, '+', 'COUNT', 1)
  if fresh == 0 then return group['pending'] end
  -- Redis may lose count of a group's lag; the length of the stream is then the upper bound
  return group['pending'] + math.max(fresh, group['lag'] or redis.call('XLEN', stream))
end

-- Names and renewals of the replicas that have not confirmed a state.
local function laggards(replicas, now)
  local names, home = {}, now[1] .. '/' .. now[2]
  local leases = redis.call('HGETALL', replicas)
  for i = 1, #leases, 2 do
    local at, renewal, generation, seen = string.match(leases[i + 1], '(%S+) (%d+) (%d+) (%S+)')
    if at ~= home or tonumber(generation) < tonumber(now[3]) or after(now[4], seen) then
      names[#names + 1] = leases[i]
      names[#names + 1] = renewal
    end
  end
  return names
end
