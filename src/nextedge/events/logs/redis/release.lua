-- Ends a consumer's lease. KEYS: log, lease. ARGV: token of the consumer.
-- after the lease ran out the key may be another consumer's
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
