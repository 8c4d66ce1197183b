-- Returns how many events wait for a group; where any do, also seconds and microseconds of the server's
-- clock and the position of the oldest, whose milliseconds are of the same clock.
-- KEYS: log, stream. ARGV: group.
local group = {['pending'] = 0, ['lag'] = false, ['last-delivered-id'] = '0-0'}
for _, known in ipairs(groups(KEYS[2])) do if known['name'] == ARGV[1] then group = known end end
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
