-- Appends a batch of events, all of them or none. Returns the state, how many events were new and
-- the replicas that have not seen them; or the state, -1, the slowest group and its waiting events.
-- KEYS: log, stream, ids, replicas. ARGV: id of a new log; most events that may wait (0: any number);
-- 1 if the events come from another log, else 0; of each event the hash of its id, time and body.
local most = tonumber(ARGV[2])
local full, waiting = nil, 0
if most > 0 then
  for _, group in ipairs(groups(KEYS[2])) do
    local count = behind(KEYS[2], group)
    if count >= most and count > waiting then full, waiting = group['name'], count end
  end
end
if full then
  -- a batch of known events only is a repeated delivery, which a full log can acknowledge
  for i = 4, #ARGV, 3 do
    if redis.call('SISMEMBER', KEYS[3], ARGV[i]) == 0 then return {state(), -1, full, waiting} end
  end
end
-- the first batch names the log; a log that Redis lost gets another id, by which replicas know it
redis.call('HSETNX', KEYS[1], 'id', ARGV[1])
local stored = 0
for i = 4, #ARGV, 3 do
  -- ids outlive their events, so that a repeated delivery of an erased event is not new
  if redis.call('SADD', KEYS[3], ARGV[i]) == 1 then
    local at = redis.call(
      'XADD', KEYS[2], '*', 'micros', ARGV[i + 1], 'relayed', ARGV[3], 'body', ARGV[i + 2])
    redis.call('HSET', KEYS[1], 'last', at)
    stored = stored + 1
  end
end
-- written even where no event is new: the wait for this write is a wait for the earlier writes too
redis.call('HINCRBY', KEYS[1], 'batches', 1)
local now = state()
return {now, stored, laggards(KEYS[4], now)}
