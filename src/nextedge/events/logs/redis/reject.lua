-- Stores a dead letter and returns the state. KEYS: log, stream, dead. ARGV: position, field, letter.
-- an event that was erased since it was polled must not come back as a dead letter
if #redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1]) == 1 then
  redis.call('HSETNX', KEYS[3], ARGV[2], ARGV[3])
end
redis.call('HINCRBY', KEYS[1], 'batches', 1)  -- always a write, for the wait for the disk
return {state()}
