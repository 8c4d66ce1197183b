-- Takes or renews a group's lease and reads its next events. Returns the state and 0 where another
-- consumer has the lease; else the state, 1, where to read next and the entries.
-- KEYS: log, stream, lease, takers. ARGV: token of the consumer, lease in milliseconds, group, name of
-- the group's one consumer in Redis, where to read among the pending entries ('>': after them), limit.
local holder = redis.call('GET', KEYS[3])
if holder and holder ~= ARGV[1] then return {state(), 0} end
local from = ARGV[5]
if redis.call('HGET', KEYS[4], ARGV[3]) ~= ARGV[1] then
  -- this consumer takes over: it begins with the entries that the one before did not commit
  redis.call('HSET', KEYS[4], ARGV[3], ARGV[1])
  from = '0'
end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
local known = false
for _, group in ipairs(groups(KEYS[2])) do known = known or group['name'] == ARGV[3] end
if not known then
  -- ENTRIESREAD lets Redis count the lag from the first event on
  redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[3], '0', 'MKSTREAM', 'ENTRIESREAD', '0')
end
local function read(at)
  local streams = redis.call(
    'XREADGROUP', 'GROUP', ARGV[3], ARGV[4], 'COUNT', ARGV[6], 'STREAMS', KEYS[2], at)
  return streams and streams[1][2] or {}
end
local entries = {}
if from ~= '>' then
  entries = read(from)
  from = #entries > 0 and entries[#entries][1] or '>'
end
if #entries == 0 then entries = read('>') end
return {state(), 1, from, entries}
