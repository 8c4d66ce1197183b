-- Copies the next entries of the stream without the doomed ones: one step of a purge. Returns 0 where
-- another purge is under way; else 1, the last position read, how many entries there were, and the
-- doomed positions among them. KEYS: log, stream, copy, purging. ARGV: token of the purge, lease in
-- milliseconds, position to go on after ('' begins), most entries of a step, doomed positions.
local holder, from = redis.call('GET', KEYS[4]), ARGV[3]
-- a purge that has begun and lost its lease has a copy that another purge may have deleted
if holder ~= ARGV[1] and (holder or from ~= '') then return {0} end
redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[2])
if from == '' then
  redis.call('DEL', KEYS[3])  -- of a purge that died
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
