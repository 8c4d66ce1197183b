-- Looks for the first event that is not older than a time, in steps that let other clients in between.
-- Returns 1 (it is in this step), 0 (go on) or -1 (there is none), the last position before it, how
-- many events are up to there, and, with 1, its position.
-- KEYS: log, stream. ARGV: last position read, events read so far, oldest time, most events of a step.
local last, before = ARGV[1], tonumber(ARGV[2])
local entries = redis.call('XRANGE', KEYS[2], '(' .. last, '+', 'COUNT', ARGV[4])
for _, entry in ipairs(entries) do
  local micros = tonumber(named(entry[2])['micros'] or 0)
  if micros >= tonumber(ARGV[3]) then return {1, last, before, entry[1]} end
  last, before = entry[1], before + 1
end
return {#entries > 0 and 0 or -1, last, before}
