"""What Redis runs as one step for the Redis log: nothing comes between, and all or nothing is done.

Every script ends its answer's head with the state of the log: the server's run, the log's own id,
its generation and its last position. ``KEYS[1]`` is always the hash that holds it.
"""

from __future__ import annotations

_HEAD = """
local function state()
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local kept = redis.call('HMGET', KEYS[1], 'id', 'generation', 'last')
  return {run, kept[1] or '', kept[2] or '0', kept[3] or '0-0'}
end
local function after(a, b)  -- whether position a stands after b; each is milliseconds-number
  local a1, a2 = string.match(a, '(%d+)-(%d+)')
  local b1, b2 = string.match(b, '(%d+)-(%d+)')
  a1, a2, b1, b2 = tonumber(a1), tonumber(a2), tonumber(b1), tonumber(b2)
  return a1 > b1 or (a1 == b1 and a2 > b2)
end
local function named(flat)  -- a table of a list of names and values
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end
local function groups(stream)
  local found = {}
  if redis.call('EXISTS', stream) == 1 then
    for _, each in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      found[#found + 1] = named(each)
    end
  end
  return found
end
local function behind(stream, group)  -- events not committed; Redis may lose count of its lag
  local from = '(' .. group['last-delivered-id']
  local fresh = #redis.call('XRANGE', stream, from, '+', 'COUNT', 1)
  if fresh == 0 then return group['pending'] end
  return group['pending'] + math.max(fresh, group['lag'] or redis.call('XLEN', stream))
end
local function laggards(replicas, now)  -- names and renewals of those that have not seen it all
  local found, home = {}, now[1] .. '/' .. now[2]
  local kept = redis.call('HGETALL', replicas)
  for i = 1, #kept, 2 do
    local at, renewal, generation, seen = string.match(kept[i + 1], '(%S+) (%d+) (%d+) (%S+)')
    if at ~= home or tonumber(generation) < tonumber(now[3]) or after(now[4], seen) then
      found[#found + 1] = kept[i]
      found[#found + 1] = renewal
    end
  end
  return found
end
"""

STATE = _HEAD + "return {state()}"

APPEND = (
    _HEAD
    + """
-- KEYS: log, stream, ids, replicas. ARGV: id of a new log, most that may wait (0: any number),
-- whether they come from another log (1 or 0), then of each event the hash of its id, its time and
-- its body.
local most = tonumber(ARGV[2])
local full, waiting = nil, 0
if most > 0 then
  for _, group in ipairs(groups(KEYS[2])) do
    local count = behind(KEYS[2], group)
    if count >= most and count > waiting then full, waiting = group['name'], count end
  end
end
if full then
  for i = 4, #ARGV, 3 do
    if redis.call('SISMEMBER', KEYS[3], ARGV[i]) == 0 then return {state(), -1, full, waiting} end
  end
end
redis.call('HSETNX', KEYS[1], 'id', ARGV[1])
local stored = 0
for i = 4, #ARGV, 3 do
  if redis.call('SADD', KEYS[3], ARGV[i]) == 1 then
    local at = redis.call(
      'XADD', KEYS[2], '*', 'micros', ARGV[i + 1], 'relayed', ARGV[3], 'body', ARGV[i + 2])
    redis.call('HSET', KEYS[1], 'last', at)
    stored = stored + 1
  end
end
-- written even where nothing is new, so that to wait for this write is to wait for the older too
redis.call('HINCRBY', KEYS[1], 'batches', 1)
local now = state()
return {now, stored, laggards(KEYS[4], now)}
"""
)

RENEW = (
    _HEAD
    + """
-- KEYS: log, replicas. ARGV: name; home, renewal, generation and position of what it has seen.
redis.call('HSET', KEYS[2], ARGV[1], table.concat({ARGV[2], ARGV[3], ARGV[4], ARGV[5]}, ' '))
return {state()}
"""
)

LAGGARDS = (
    _HEAD
    + """
-- KEYS: log, replicas. ARGV: generation and position that all must have seen.
local now = state()
return {now, laggards(KEYS[2], {now[1], now[2], ARGV[1], ARGV[2]})}
"""
)

EVICT = """
-- KEYS: log, replicas. ARGV: names and renewals; who has renewed since stays.
for i = 1, #ARGV, 2 do
  local kept = redis.call('HGET', KEYS[2], ARGV[i])
  if kept and string.match(kept, '%S+ (%d+)') == ARGV[i + 1] then
    redis.call('HDEL', KEYS[2], ARGV[i])
  end
end
"""

TAKE = (
    _HEAD
    + """
-- KEYS: log, stream, lease, takers. ARGV: token, lease in ms, group, consumer, where to go on among
-- what is pending ('>' beyond it), limit.
local holder = redis.call('GET', KEYS[3])
if holder and holder ~= ARGV[1] then return {state(), 0} end
local from = ARGV[5]
if redis.call('HGET', KEYS[4], ARGV[3]) ~= ARGV[1] then
  redis.call('HSET', KEYS[4], ARGV[3], ARGV[1])
  from = '0'
end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
local known = false
for _, group in ipairs(groups(KEYS[2])) do known = known or group['name'] == ARGV[3] end
if not known then
  redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[3], '0', 'MKSTREAM', 'ENTRIESREAD', '0')
end
local function read(at)
  local found = redis.call(
    'XREADGROUP', 'GROUP', ARGV[3], ARGV[4], 'COUNT', ARGV[6], 'STREAMS', KEYS[2], at)
  return found and found[1][2] or {}
end
local found = {}
if from ~= '>' then
  found = read(from)
  from = #found > 0 and found[#found][1] or '>'
end
if #found == 0 then found = read('>') end
return {state(), 1, from, found}
"""
)

COMMIT = """
-- KEYS: log, stream, takers. ARGV: token, group, positions.
if redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[1] then return 0 end
for i = 3, #ARGV do redis.call('XACK', KEYS[2], ARGV[2], ARGV[i]) end
return 1
"""

REJECT = (
    _HEAD
    + """
-- KEYS: log, stream, dead. ARGV: position, field, letter. What was erased meanwhile stays erased.
if #redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1]) == 1 then
  redis.call('HSETNX', KEYS[3], ARGV[2], ARGV[3])
end
redis.call('HINCRBY', KEYS[1], 'batches', 1)
return {state()}
"""
)

RELEASE = """
-- KEYS: log, lease. ARGV: token.
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
"""

LAG = (
    _HEAD
    + """
-- KEYS: log, stream. ARGV: group. Returns events, and milliseconds and microseconds of the clock
-- and milliseconds of the oldest that waits.
local group = {['pending'] = 0, ['lag'] = false, ['last-delivered-id'] = '0-0'}
for _, each in ipairs(groups(KEYS[2])) do if each['name'] == ARGV[1] then group = each end end
local count = behind(KEYS[2], group)
if count == 0 then return {0} end
local oldest
if group['pending'] > 0 then
  oldest = redis.call('XPENDING', KEYS[2], ARGV[1])[2]
else
  oldest = redis.call('XRANGE', KEYS[2], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1][1]
end
local clock = redis.call('TIME')
return {count, clock[1], clock[2], oldest}
"""
)

GROUPS = (
    _HEAD
    + """
-- KEYS: log, stream.
local names = {}
for _, each in ipairs(groups(KEYS[2])) do names[#names + 1] = each['name'] end
return names
"""
)

FIND = (
    _HEAD
    + """
-- KEYS: log, stream. ARGV: last position looked at, events looked at so far, oldest time, how many
-- to look at. Returns 1 (found), 0 (go on) or -1 (none), where it stopped, and how many are before.
local last, before = ARGV[1], tonumber(ARGV[2])
local entries = redis.call('XRANGE', KEYS[2], '(' .. last, '+', 'COUNT', ARGV[4])
for _, entry in ipairs(entries) do
  if tonumber(named(entry[2])['micros'] or 0) >= tonumber(ARGV[3]) then return {1, last, before, entry[1]} end
  last, before = entry[1], before + 1
end
return {#entries > 0 and 0 or -1, last, before}
"""
)

DROP = """
-- KEYS: stream. ARGV: group.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1]) end
"""
REWIND = (
    _HEAD
    + """
-- KEYS: log, stream. ARGV: group, position to go on after, how many are up to there, first event
-- wanted. A group that has not come so far keeps its place.
for _, group in ipairs(groups(KEYS[2])) do
  if group['name'] == ARGV[1] then
    local wanted, waits = ARGV[4], nil
    if group['pending'] > 0 then waits = redis.call('XPENDING', KEYS[2], ARGV[1])[2] end
    if (waits and after(waits, wanted)) or
       (not waits and not after(wanted, group['last-delivered-id'])) then
      redis.call('XGROUP', 'DESTROY', KEYS[2], ARGV[1])
      redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[1], ARGV[2], 'ENTRIESREAD', ARGV[3])
    end
  end
end
"""
)

COPY = (
    _HEAD
    + """
-- KEYS: log, stream, copy, purging. ARGV: token, lease in ms, position to go on after ('' begins),
-- how many, doomed positions among those. Returns where it stopped, how many there were, and the
-- doomed that were found.
local holder, from = redis.call('GET', KEYS[4]), ARGV[3]
if holder ~= ARGV[1] and (holder or from ~= '') then return {0} end
redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[2])
if from == '' then
  redis.call('DEL', KEYS[3])
  from = '0-0'
end
local doomed, removed = {}, {}
for i = 5, #ARGV do doomed[ARGV[i]] = true end
local entries = redis.call('XRANGE', KEYS[2], '(' .. from, '+', 'COUNT', ARGV[4])
for _, entry in ipairs(entries) do
  if doomed[entry[1]] then removed[#removed + 1] = entry[1]
  else redis.call('XADD', KEYS[3], entry[1], unpack(entry[2])) end
  from = entry[1]
end
return {1, from, #entries, removed}
"""
)

SWAP = (
    _HEAD
    + """
-- KEYS: log, stream, copy, purging, dead, replicas. ARGV: token, position up to which the copy
-- goes, number of removed positions, those, doomed positions.
if redis.call('GET', KEYS[4]) ~= ARGV[1] then return {state(), 0} end
local count = tonumber(ARGV[3])
local doomed = {}
for i = 4, #ARGV do doomed[ARGV[i]] = true end
if redis.call('EXISTS', KEYS[2]) == 1 then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+')) do
    redis.call('XADD', KEYS[3], entry[1], unpack(entry[2]))
  end
  if redis.call('EXISTS', KEYS[3]) == 0 then  -- a stream of no entries
    redis.call('XGROUP', 'CREATE', KEYS[3], 'none', '0', 'MKSTREAM')
    redis.call('XGROUP', 'DESTROY', KEYS[3], 'none')
  end
  for _, group in ipairs(groups(KEYS[2])) do
    local at, read = group['last-delivered-id'], group['entries-read'] or 0
    for i = 4, 3 + count do if not after(ARGV[i], at) then read = read - 1 end end
    redis.call('XGROUP', 'CREATE', KEYS[3], group['name'], at, 'ENTRIESREAD', math.max(0, read))
    if group['pending'] > 0 then
      local pending = redis.call(
        'XPENDING', KEYS[2], group['name'], '-', '+', group['pending'])
      for _, each in ipairs(pending) do
        if not doomed[each[1]] then
          redis.call('XCLAIM', KEYS[3], group['name'], each[2], 0, each[1], 'FORCE', 'JUSTID')
        end
      end
    end
  end
  local last = named(redis.call('XINFO', 'STREAM', KEYS[2]))['last-generated-id']
  redis.call('XSETID', KEYS[3], last)
  redis.call('RENAME', KEYS[3], KEYS[2])
end
for _, field in ipairs(redis.call('HKEYS', KEYS[5])) do
  if doomed[string.match(field, '^(%S+) ')] then redis.call('HDEL', KEYS[5], field) end
end
redis.call('DEL', KEYS[4])
redis.call('HINCRBY', KEYS[1], 'generation', 1)
local now = state()
return {now, 1, laggards(KEYS[6], now)}
"""
)
