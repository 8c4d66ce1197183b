-- Commits positions of a group; returns 0 where another consumer has taken the group meanwhile.
-- KEYS: log, stream, takers. ARGV: token of the consumer, group, positions.
-- not the lease decides, but who took it last: after a late commit nothing has to come again
if redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[1] then return 0 end
for i = 3, #ARGV do redis.call('XACK', KEYS[2], ARGV[2], ARGV[i]) end
return 1
