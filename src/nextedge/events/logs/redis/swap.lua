-- Puts the copy in the place of the stream: the last step of a purge. Returns the state and 0 where the
-- purge has lost its lease; else the state, 1 and the replicas that have not seen the new generation.
-- KEYS: log, stream, copy, purging, dead, replicas. ARGV: token of the purge, last position of the
-- copy, number of removed positions, the removed positions, the doomed positions.
if redis.call('GET', KEYS[4]) ~= ARGV[1] then return {state(), 0} end
local count = tonumber(ARGV[3])
local doomed = {}
for i = 4, #ARGV do doomed[ARGV[i]] = true end
if redis.call('EXISTS', KEYS[2]) == 1 then
  -- events that were appended while the purge copied
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+')) do
    redis.call('XADD', KEYS[3], entry[1], unpack(entry[2]))
  end
  if redis.call('EXISTS', KEYS[3]) == 0 then  -- every event was erased: make an empty stream
    redis.call('XGROUP', 'CREATE', KEYS[3], 'none', '0', 'MKSTREAM')
    redis.call('XGROUP', 'DESTROY', KEYS[3], 'none')
  end
  for _, group in ipairs(groups(KEYS[2])) do
    local at, read = group['last-delivered-id'], group['entries-read'] or 0
    -- removed events that the group has read count no more, or its lag would be too small
    for i = 4, 3 + count do if not after(ARGV[i], at) then read = read - 1 end end
    redis.call('XGROUP', 'CREATE', KEYS[3], group['name'], at, 'ENTRIESREAD', math.max(0, read))
    if group['pending'] > 0 then
      local pending = redis.call(
        'XPENDING', KEYS[2], group['name'], '-', '+', group['pending'])
      for _, entry in ipairs(pending) do
        if not doomed[entry[1]] then
          redis.call('XCLAIM', KEYS[3], group['name'], entry[2], 0, entry[1], 'FORCE', 'JUSTID')
        end
      end
    end
  end
  -- the last position may have been erased, and must never be given to another event
  local last = named(redis.call('XINFO', 'STREAM', KEYS[2]))['last-generated-id']
  redis.call('XSETID', KEYS[3], last)
  redis.call('RENAME', KEYS[3], KEYS[2])
end
for _, field in ipairs(redis.call('HKEYS', KEYS[5])) do
  if doomed[string.match(field, '^(%S+) ')] then redis.call('HDEL', KEYS[5], field) end
end
redis.call('DEL', KEYS[4])
-- a new generation makes every replica fold the log anew, without the erased events
redis.call('HINCRBY', KEYS[1], 'generation', 1)
local now = state()
return {now, 1, laggards(KEYS[6], now)}
