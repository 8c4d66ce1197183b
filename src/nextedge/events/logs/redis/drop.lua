-- Forgets a group. KEYS: log, stream. ARGV: group.
-- XGROUP raises an error for a stream that does not exist
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('XGROUP', 'DESTROY', KEYS[2], ARGV[1]) end
